"""The negative controls still fit the code. What they break is shown by `python -m tests.faults.controls`: minutes."""

from pathlib import Path

import pytest

from tests.faults.catalog import FAULTS
from tests.faults.controls import CONTROLS, Control, take_out


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_guard_can_be_taken_out(tmp_path: Path, control: Control) -> None:
    tree = take_out(control, tmp_path)
    for patch in control.patches:
        assert patch.before not in (tree / patch.path).read_text() or patch.before in patch.after
    assert control.fault in FAULTS
