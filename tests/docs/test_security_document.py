"""docs/security.md: each threat names a test that is there; dependencies are what they were when somebody looked."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/security.md").read_text()
ROW = re.compile(r"^\| (?!threat|-)([^|]+) \| ([^|]+) \| `([^`]+)` \|$", re.MULTILINE)
ROWS = ROW.findall(TEXT)


@pytest.mark.parametrize(("threat", "guard", "test"), ROWS, ids=[row[0] for row in ROWS])
def test_each_threat_has_a_test_that_is_there(threat: str, guard: str, test: str) -> None:
    path, _, name = test.partition("::")
    source = (ROOT / path).read_text()
    assert not name or re.search(rf"^(?:async )?def {name}\(", source, re.MULTILINE), f"{threat}: {test}"
    assert guard.strip()


def test_every_row_of_the_tables_is_read() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ") and not line.startswith(("| threat", "|---"))]
    assert len(rows) == len(ROWS) > 30
    assert "docs/security.md" in (ROOT / "SECURITY.md").read_text()


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-run.lock"])
def test_every_dependency_is_locked_by_hash(name: str) -> None:
    """What `make audit` looks up is what is installed, to the byte."""
    blocks = re.split(r"\n(?=\S)", (ROOT / name).read_text())
    pinned = [block for block in blocks if "==" in block.splitlines()[0] and not block.startswith("#")]
    assert len(pinned) > 40
    assert [block.splitlines()[0] for block in pinned if "--hash=sha256:" not in block] == []
