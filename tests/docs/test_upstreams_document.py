"""docs/upstreams.md: its entries can be loaded, and its table names every setting of a profile with its default."""

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path

import pytest

from billing.catalog.file import parse_catalog
from gateway.protocol.profile import UpstreamProfile, read_profile

DOCUMENT = (Path(__file__).resolve().parent.parent.parent / "docs" / "upstreams.md").read_text()
[ENTRIES] = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)


def test_every_entry_can_be_loaded() -> None:
    catalog = parse_catalog(ENTRIES, file_name="docs/upstreams.md")
    assert len(catalog.upstreams) == 8
    for upstream in catalog.upstreams:
        read_profile(upstream.profile)


def test_the_table_names_every_setting() -> None:
    documented = re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert sorted(documented) == sorted(setting.name for setting in fields(UpstreamProfile))


@pytest.mark.parametrize("setting", fields(UpstreamProfile), ids=lambda setting: setting.name)
def test_the_documented_default_is_the_true_one(setting: "Field[object]") -> None:
    [shown] = re.findall(rf"^\| `{setting.name}` \| (.*?) \|", DOCUMENT, re.MULTILINE)
    if isinstance(setting.default, bool):
        assert shown == f"`{str(setting.default).lower()}`"
    elif setting.default is MISSING or not setting.default:
        assert "`" not in shown
    else:
        assert shown == f"`{setting.default}`"
