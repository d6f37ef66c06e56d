"""docs/prices.md states facts: its catalog loads as it stands, and names every field and component there is."""

import re
from pathlib import Path

from billing.catalog.file import CAPABILITIES, parse_catalog
from billing.pricing.cost import COMPONENTS, Usage, cost_nanos
from tests.billing.pricing.test_cost import VECTORS, table_of

DOC = (Path(__file__).parents[3] / "docs" / "prices.md").read_text()
EXAMPLE = DOC.split("```toml\n")[1].split("```")[0]


def test_the_documented_catalog_is_valid() -> None:
    (model,) = parse_catalog(EXAMPLE, file_name="prices.md").models
    assert [price.seller for price in model.prices] == ["sale", "acme"]
    assert set(model.prices[0].tiers) == set(COMPONENTS)


def test_the_documented_catalog_names_every_field() -> None:
    source = (Path(__file__).parents[3] / "billing" / "catalog" / "file.py").read_text()
    fields = set(re.findall(r'table\.(?:text|choice|flag|integer|texts|day|moment|mapping)\(\s*"(\w+)"', source))
    assert len(fields) > 20
    documented = set(re.findall(r"^(\w+) = ", EXAMPLE, re.MULTILINE)) | {"profile"}
    assert documented >= fields
    assert all(capability in EXAMPLE for capability in CAPABILITIES)


def test_every_component_is_explained() -> None:
    assert all(f"`{component}`" in DOC for component in COMPONENTS)


def test_the_worked_example_is_right() -> None:
    assert cost_nanos(Usage(input_tokens=18, output_tokens=14), table_of(VECTORS["prices"]["sonnet"])) == 264_000
    assert "264,000 nano-dollars, or 0.000264 USD" in DOC
