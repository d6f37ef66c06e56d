"""docs/faults.md names every fault and every negative control, and no other."""

import re

from tests.faults.catalog import FAULTS
from tests.faults.controls import CONTROLS
from tests.support.world import ROOT

DOCUMENT = (ROOT / "docs/faults.md").read_text()


def test_every_fault_is_described() -> None:
    table = DOCUMENT.partition("## What strikes")[2].partition("## What is checked")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(FAULTS)


def test_every_control_has_been_shown_to_break_its_invariant() -> None:
    table = DOCUMENT.partition("## Negative controls")[2].partition("## What has been run")[0]
    rows = re.findall(r"^\| ([\w ]+) \| (\w+) \| \d \| (I\d+) broken \|", table, re.MULTILINE)
    assert sorted(rows) == sorted((control.name, control.fault, control.invariant) for control in CONTROLS)
