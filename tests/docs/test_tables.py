"""Tables of the documents are whole: each row stands beneath a head, with as many cells as that has."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "deploy").glob("**/*.md")]
CODE = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
BETWEEN_CELLS = re.compile(r"(?<!\\)\|")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_tables_are_whole(document: Path) -> None:
    text = CODE.sub("", document.read_text())
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        rows = table.splitlines()
        assert re.fullmatch(r"[|\- :]+", rows[1] if len(rows) > 1 else ""), f"a table without a head: {rows[0]}"
        assert {len(BETWEEN_CELLS.findall(row)) for row in rows} == {len(BETWEEN_CELLS.findall(rows[0]))}, rows[0]
