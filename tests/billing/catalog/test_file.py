"""The catalog file: what it means, and that every mistake in it is named with its line and field."""

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from billing.catalog.file import InvalidCatalogError, PriceEntry, RouteEntry, UpstreamEntry, parse_catalog
from billing.catalog.toml_lines import TomlLines, format_path
from billing.pricing.cost import COMPONENTS
from tests.billing.catalog_factory import CATALOG

DEFAULT_CATALOG = Path(__file__).parents[3] / "billing" / "catalog" / "default.toml"


def errors_of(text: str) -> list[str]:
    with pytest.raises(InvalidCatalogError) as caught:
        parse_catalog(text, file_name="catalog.toml")
    return caught.value.errors


CAPABILITIES, BOUNDS = 'capabilities = ["tools"]', "expansion_tokens = "


def edited(old: str, new: str) -> str:
    assert old in CATALOG
    return CATALOG.replace(old, new, 1)


def line_of(text: str, part: str) -> int:
    """The last line that holds `part`."""
    return max(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


def test_reads_everything() -> None:
    catalog = parse_catalog(CATALOG, file_name="catalog.toml")
    assert catalog.upstreams[0] == UpstreamEntry(
        name="acme",
        protocol="messages",
        base_url="https://api.acme.example",
        credential_env="ACME_API_KEY",
        bills_when_cancelled=False,
        is_sandbox=False,
        is_enabled=True,
        profile={"api_version": "2023-06-01"},
    )
    (model,) = catalog.models
    assert (model.id, model.aliases, model.max_image_tokens) == ("acme/large-1.0", ("large-1-0", "acme/large"), 1600)
    assert model.released == datetime(2026, 2, 17, tzinfo=UTC)
    assert model.routes == (
        RouteEntry("acme", "large-1-0-20260217", 1, 100),
        RouteEntry("sandbox", "large", 9, 100),
    )
    tiers = {
        "input": ((0, 3_000_000), (200_001, 6_000_000)),
        "output": ((0, 15_000_000), (200_001, 22_500_000)),
        "cache_write_5m": ((0, 3_750_000), (200_001, 7_500_000)),
        "cache_write_1h": ((0, 6_000_000), (200_001, 12_000_000)),
        "cache_read": ((0, 300_000), (200_001, 600_000)),
        "image": ((0, 0),),
    }
    assert model.prices == tuple(
        PriceEntry(
            seller, datetime(2026, 2, 17, tzinfo=UTC), "https://acme.example/prices", date(2026, 11, 1), 0, tiers
        )
        for seller in ("sale", "acme")
    )


def test_what_is_cached_costs_as_input_where_no_price_is_named() -> None:
    text = CATALOG
    for field in ("cache_write_5m", "cache_write_1h", "cache_read"):
        text = "\n".join(line for line in text.splitlines() if not line.startswith(field))
    tiers = parse_catalog(text, file_name="catalog.toml").models[0].prices[0].tiers
    assert tiers["cache_read"] == tiers["cache_write_1h"] == tiers["cache_write_5m"] == tiers["input"]


def test_units_are_priced_by_the_thousand() -> None:
    text = edited(
        'cache_read = "0.30"', 'cache_read = "0.30"\nweb_search_per_thousand = "10"\nimage_per_thousand = "1.25"'
    )
    tiers = parse_catalog(text, file_name="catalog.toml").models[0].prices[0].tiers
    assert tiers["web_search"] == ((0, 10_000_000_000),)  # 0.01 USD each.
    assert tiers["image"] == ((0, 1_250_000_000),)


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ('input = "3"', 'input = "abc"', "model[0].price[0].input", '"abc" is not a decimal number.'),
        ('input = "3"', 'input = "NaN"', "model[0].price[0].input", '"NaN" is not a decimal number.'),
        ('input = "3"', 'input = "1e3"', "model[0].price[0].input", '"1e3" is not a decimal number.'),
        ('input = "3"', 'input = "-3"', "model[0].price[0].input", '"-3" is negative.'),
        ('input = "3"', 'input = "0.0000001"', "model[0].price[0].input", "finer than one micro-dollar per million."),
        ('input = "3"', 'input = "99999999999"', "model[0].price[0].input", "is larger than any price can be."),
        (
            'input = "3"',
            "input = 3.75",
            "model[0].price[0].input",
            'must be a decimal number in quotes, such as "3.75", not a number.',
        ),
        ('output = "22.50"', 'output = ""', "model[0].price[0].tier[0].output", '"" is not a decimal number.'),
        ("prompt_tokens_from = 200_001", "prompt_tokens_from = 0", "model[0].price[0].tier[0].prompt_tokens_from", "1"),
        ("position = 9", "position = true", "model[0].route[1].position", "must be a whole number, not true or false."),
        ("position = 9", "postion = 9", "model[0].route[1].postion", "is not a known field."),
        ('upstream = "acme"', 'upstream = "acne"', "model[0].route[0].upstream", '"acne" is no [[upstream]]'),
        ('["sale", "acme"]', '["sale", "acne"]', "model[0].price[0].applies_to", '"acne" is neither "sale" nor'),
        ('["sale", "acme"]', '["acme"]', "model[0].price", "a model without a price cannot be sold."),
        ('["tools"]', '["toolz"]', "model[0].capabilities", '"toolz" is not one of'),
        (
            CAPABILITIES,
            f"{BOUNDS}{{ pdf = 5 }}",
            "model[0].expansion_tokens",
            '"pdf" is not one of document, web_fetch',
        ),
        (CAPABILITIES, f'{BOUNDS}{{ document = "5" }}', "model[0].expansion_tokens", "document must be a whole number"),
        (CAPABILITIES, f"{BOUNDS}{{ document = 0 }}", "model[0].expansion_tokens", "from 1 to 2147483647."),
        ('"large-1-0"', '"acme/large-1.0"', "model[0].aliases", '"acme/large-1.0" is named twice.'),
        ('name = "sandbox"', 'name = "sale"', "upstream[1].name", "means the price that organizations pay."),
        ('name = "sandbox"', 'name = "acme"', "upstream[1].name", '"acme" is named twice.'),
        (
            '"ACME_API_KEY"',
            '"sk-1234"',
            "upstream[0].credential_env",
            ": names an environment variable, never the secret",
        ),
        ('"https://api.acme', '"ftp://api.acme', "upstream[0].base_url", "is not an http(s) address"),
        ('"https://api.acme', '"https://me:word@api.acme', "upstream[0].base_url", "is not an http(s) address"),
        ('protocol = "messages"', 'protocol = "smtp"', "upstream[0].protocol", "is not one of messages, chat_comp"),
        ("sandbox = true", 'sandbox = "yes"', "upstream[1].sandbox", "must be true or false, not a text."),
        ("released = 2026-02-17", 'released = "May"', "model[0].released", "must be a date, or a time with its offset"),
        (
            "effective_from = 2026-02-17",
            "effective_from = 2026-02-17T00:00:00",
            "model[0].price[0].effective_from",
            "must be a date, or a time with its offset",
        ),
        ("source_date = 2026-11-01", "source_date = 20261101", "model[0].price[0].source_date", "must be a date such"),
        ('api_version = "2023-06-01"', "api_version = 2023-06-01", "upstream[0].profile", "may hold texts, numbers"),
        ('display_name = "Acme', 'display_name = "\\n', "model[0].display_name", "is not allowed here."),
        ('display_name = "Acme', 'display_name = "' + "x" * 101, "model[0].display_name", "longer than 100"),
    ],
)
def test_every_mistake_names_its_line_and_field(old: str, new: str, field: str, message: str) -> None:
    text = edited(old, new)
    (error,) = [error for error in errors_of(text) if f" {field}: " in error]
    assert message in error
    assert error.startswith("catalog.toml:")
    number = int(error.split(":")[1])
    # What is wrong with a table as a whole is reported where the table begins.
    headers = {"upstream[0].profile": "[upstream.profile]", "model[0].price": "[[model]]"}
    headers["model[0].expansion_tokens"] = "[[model]]"
    assert number == line_of(text, headers.get(field, new))


@pytest.mark.parametrize("field", ["input", "output", "source", "source_date"])
def test_missing_figures_are_reported_at_their_table(field: str) -> None:
    lines = CATALOG.splitlines()
    start = line_of(CATALOG, "[[model.price]]")
    missing = next(number for number in range(start, len(lines)) if lines[number].startswith(f"{field} ="))
    del lines[missing]
    assert f"catalog.toml:{start}: model[0].price[0].{field}: is missing." in errors_of("\n".join(lines))


def test_a_tier_must_name_what_its_price_names() -> None:
    """Else the forgotten one would be sold at the price of short prompts."""
    text = edited('cache_write_1h = "12"\n', "")
    line = line_of(text, "[[model.price.tier]]")
    assert errors_of(text) == [f"catalog.toml:{line}: model[0].price[0].tier[0].cache_write_1h: is missing."]


def test_two_prices_of_one_seller_and_date_are_refused() -> None:
    price = CATALOG[CATALOG.index("[[model.price]]") :]
    text = CATALOG + "\n" + price.replace('"3"', '"4"')
    assert [error.split(": ", 1)[1] for error in errors_of(text)] == [
        f'model[0].price[1].effective_from: "{seller} from 2026-02-17 00:00:00+00:00" is named twice.'
        for seller in ("acme", "sale")
    ]


def test_all_problems_are_reported_at_once_in_the_order_of_the_file() -> None:
    text = edited('input = "3"', 'input = "abc"').replace("sandbox = true", "sandbox = 1").replace('"tools"', '"x"')
    assert [error.split(":")[2].strip() for error in errors_of(text)] == [
        "upstream[1].sandbox",
        "model[0].capabilities",
        "model[0].price[0].input",
    ]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a = 1\nb = = 2\n", "catalog.toml:2: Invalid value, at column 5."),
        ("a = [1,\n2", "catalog.toml:2: Unclosed array (at end of document)."),
        (
            "[[upstream]]\n[upstream.x\n",
            "catalog.toml:2: Expected ']' at the end of a table declaration, at column 12.",
        ),
        ("nodel = 1\n", "catalog.toml:1: nodel: is not a known field. Known fields are: model, upstream."),
        ("model = 1\n", "catalog.toml:1: model: must be written as [[model]] tables."),
        ("\n\nmodel = [1]\n", "catalog.toml:3: model: must be written as [[model]] tables."),
    ],
)
def test_broken_files(text: str, error: str) -> None:
    assert errors_of(text) == [error]


def test_lines_are_found_behind_texts_and_lists_of_several_lines() -> None:
    text = '''\
about = """
[[model]]
input = "no field, only text"
"""
[[model]]
aliases = [
  "one", # [[model]]
  "two",
]
profile.headers.accept = "x"
[[model]]
id = "second"
[[model.price]]
"quoted key" = 1
[[model.price]]
input = "3"
'''
    lines = TomlLines(text)
    assert lines.line(("model", 0)) == 5
    assert lines.line(("model", 0, "aliases")) == 6
    assert lines.line(("model", 0, "profile", "headers", "accept")) == 10
    assert lines.line(("model", 1, "id")) == 12
    assert lines.line(("model", 1, "price", 0, "quoted key")) == 14
    assert lines.line(("model", 1, "price", 1, "input")) == 16
    assert lines.line(("model", 1, "price", 1, "output")) == 15  # Missing: its table.
    assert format_path(("model", 1, "price", 1, "input")) == "model[1].price[1].input"


def test_the_default_catalog_is_valid_and_sells_the_reference_model() -> None:
    catalog = parse_catalog(DEFAULT_CATALOG.read_text(), file_name="default.toml")
    models = {model.id: model for model in catalog.models}
    sonnet = models["anthropic/claude-sonnet-4.6"]
    assert "claude-sonnet-4-6" in sonnet.aliases
    prices = [price for price in sonnet.prices if price.seller == "sale"]
    assert [price.tiers["input"] + price.tiers["output"] for price in prices] == [((0, 3_000_000), (0, 15_000_000))]
    assert {alias for model in catalog.models for alias in model.aliases} >= {"claude-opus-5-5", "claude-sonnet-5-5"}
    for model in catalog.models:
        assert [route.upstream for route in model.routes] == ["anthropic", "sandbox"]
        for price in model.prices:
            assert set(price.tiers) == set(COMPONENTS)
            assert price.source.startswith("https://")
