"""Every command of ours is documented for operators, runs in a test, and no document names one that is not there."""

import re
from pathlib import Path

from django.core.management import get_commands

ROOT = Path(__file__).parents[2]
OUR_APPS = {"accounts", "api", "billing", "console", "gateway", "operations"}
OURS = {name for name, app in get_commands().items() if str(app) in OUR_APPS}
NAMED = re.compile(r"manage\.py ([a-z_]+)")


def test_every_command_is_documented() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    assert OURS - set(NAMED.findall(text)) == set()


def test_documents_name_no_command_that_is_not_there() -> None:
    documents = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    named = {name for document in documents for name in NAMED.findall(document.read_text())}
    assert named - set(get_commands()) == set()


def test_every_command_runs_in_a_test() -> None:
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    assert {name for name in OURS if f'"{name}"' not in tests} == set()
