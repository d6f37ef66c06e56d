"""docs/glossary.md names every role, state, kind and table that the code has, each in one place only."""

import re
import subprocess
from enum import Enum
from pathlib import Path

import pytest
from django.apps import apps

from accounts.models import ApiKey, Organization, Role
from billing.models import (
    Approval,
    CreditLot,
    LedgerAccount,
    LedgerTransaction,
    PriceComponent,
    ReconciliationBreak,
    TopUp,
    UsageQuarantine,
    UsageRecord,
    WebhookDelivery,
)
from billing.usage_event import USAGE_SOURCES

DOCUMENT = (Path(__file__).resolve().parent.parent.parent / "docs" / "glossary.md").read_text()
ROWS = [[cell.strip() for cell in line[1:-1].split("|")] for line in DOCUMENT.splitlines() if line[:1] == "|"]
WORDS = [row for row in ROWS if len(row) == 3 and row[0] not in ("word", "---")]  # Tables of values have two columns.


EXEMPT = {"docs/glossary.md", "CHANGELOG.md", "tests/docs/test_glossary.py"}  # They name the words.


def row_of(word: str) -> str:
    """Return the row that explains a word, with all its cells."""
    found = [row for row in WORDS if word in [name.strip() for name in row[0].split(",")]]
    assert len(found) == 1, f"{word!r} has {len(found)} rows."
    return " | ".join(found[0])


def values(choices: type[Enum]) -> set[str]:
    return {str(choice.value) for choice in choices}


def names_in(text: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", text))


def first_cells_under(heading: str) -> set[str]:
    """Return the names in the first column of the table whose first heading is this."""
    [start] = [index for index, row in enumerate(ROWS) if row[0] == heading and len(row) == 2]
    end = next((index for index, row in enumerate(ROWS) if index > start + 1 and row[0][:1] != "`"), len(ROWS))
    return set().union(*(names_in(row[0]) for row in ROWS[start:end]))


@pytest.mark.parametrize(
    ("word", "choices"),
    [
        ("role", Role),
        ("organization", Organization.Status),
        ("credit lot", CreditLot.Kind),
        ("top-up", TopUp.State),
        ("approval", Approval.State),
        ("price component", PriceComponent.Component),
        ("quarantine", UsageQuarantine.Resolution),
        ("delivery", WebhookDelivery.State),
        ("reconciliation break", ReconciliationBreak.State),
    ],
)
def test_a_row_names_every_value_and_no_other(word: str, choices: type[Enum]) -> None:
    assert names_in(row_of(word)) == values(choices)


@pytest.mark.parametrize(
    ("heading", "choices"),
    [
        ("ledger account", LedgerAccount.Kind),
        ("ledger transaction", LedgerTransaction.Kind),
        ("usage source", UsageRecord.Source),
    ],
)
def test_a_table_names_every_value_and_no_other(heading: str, choices: type[Enum]) -> None:
    assert first_cells_under(heading) == values(choices)
    assert values(UsageRecord.Source) == set(USAGE_SOURCES)


def test_the_states_of_a_key_are_named() -> None:
    properties = {name for name, value in vars(ApiKey).items() if isinstance(value, property)}
    states = {name.removeprefix("is_") for name in properties if name.startswith("is_")}
    assert names_in(row_of("key")) == states | {"active"}
    assert states == {"revoked", "disabled", "expired"}


@pytest.mark.parametrize("app", ["accounts", "billing", "gateway"])
def test_every_table_bears_a_word_of_the_glossary(app: str) -> None:
    tables = [model for model in apps.get_app_config(app).get_models() if not model._meta.auto_created]
    assert tables
    for model in tables:
        row_of(str(model._meta.verbose_name))  # A new table is explained there, or renamed to what is.


def test_no_word_is_explained_twice() -> None:
    words = [word.strip() for row in WORDS for word in row[0].split(",")]
    assert {word for word in words if words.count(word) > 1} == set()


# Words of ours that nobody outside knew. The glossary says what replaced them.
RETIRED = re.compile(
    r"\b(ShardPulse|readd|UpstreamNews|[Pp]arked credential|Patience|TokenDensity|AdmissionFigures|CreditFigure"
    r"|house_account|keep_house|OfferedModel|Settler|settler|ShardNames|BEATEN|Plant|World|set_stage|CLERKS|clerks?|Movement|standstill"
    r"|UpstreamCaller|identify_caller|change feed|built anew)\b"
)


def test_no_retired_word_comes_back() -> None:
    root = Path(__file__).resolve().parent.parent.parent
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    names = [name for name in listing.split("\0") if Path(name).suffix in {".py", ".lua", ".html", ".md"}]
    read = [name for name in names if "/migrations/" not in name and name not in EXEMPT and (root / name).is_file()]
    assert len(read) > 500
    found = {name: RETIRED.findall((root / name).read_text()) for name in read}
    assert {name: words for name, words in found.items() if words} == {}
