"""docs/faults.md names every fault and every negative control, and no other; docs/money.md has what was run."""

import re

from tests.faults.catalog import ALL_FAULTS
from tests.faults.controls import CONTROLS
from tests.faults.table import DOCUMENT as TABLE_DOCUMENT
from tests.faults.table import find_table, replace_table
from tests.support.live_stack import ROOT

DOCUMENT = (ROOT / "docs/faults.md").read_text()


def test_every_fault_is_described() -> None:
    table = DOCUMENT.partition("## What strikes")[2].partition("## What is checked")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(ALL_FAULTS)


def test_every_control_has_been_shown_to_break_its_invariant() -> None:
    table = DOCUMENT.partition("## Negative controls")[2].partition("## What has been run")[0]
    rows = re.findall(r"^\| ([\w ]+) \| (\w+) \| \d \| (I\d+) broken \|", table, re.MULTILINE)
    assert sorted(rows) == sorted((control.name, control.fault, control.invariant) for control in CONTROLS)


def test_the_table_of_runs_can_be_read_and_written() -> None:
    document = TABLE_DOCUMENT.read_text()
    rows = find_table(document)
    assert {name.partition(" on ")[0] for name in rows} <= ALL_FAULTS.keys()
    assert all(row.runs >= sum(map(len, row.seeds.values())) > 0 for row in rows.values())
    assert replace_table(document, rows) == document
