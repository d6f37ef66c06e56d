"""Migrations mean the same for ever: they import no code of ours that goes on changing, and read no clock."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
OUR_PACKAGES = {path.parent.name for path in ROOT.glob("*/__init__.py")}
CLOCKS = {"now", "utcnow", "today", "time", "time_ns", "monotonic"}
MIGRATIONS = sorted(ROOT.glob("*/migrations/0*.py"))


def imported_modules(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "."


def live_imports(source: str) -> list[str]:
    """Return what is imported of ours, but models: what they name in fields (validators, defaults) Django needs."""
    ours = [name for name in imported_modules(ast.parse(source)) if name.partition(".")[0] in OUR_PACKAGES | {""}]
    return [name for name in ours if name.split(".")[1:2] != ["models"]]


def clocks_read(source: str) -> list[int]:
    """Return the lines that ask for the time. `default=timezone.now` does not: it is called when a row is made."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return [call.lineno for call in calls if isinstance(call.func, ast.Attribute) and call.func.attr in CLOCKS]


@pytest.mark.parametrize("path", MIGRATIONS, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_a_migration_imports_no_live_code_and_reads_no_clock(path: Path) -> None:
    source = path.read_text()
    assert live_imports(source) == []
    assert clocks_read(source) == []


def test_there_are_migrations_and_both_faults_are_found() -> None:
    assert len(MIGRATIONS) > 15
    assert {"accounts", "billing", "gateway"} < OUR_PACKAGES
    source = "from billing.partitions import create_partitions\nimport billing.models.user\nx = datetime.now(UTC)\n"
    assert live_imports(source) == ["billing.partitions"]
    assert live_imports("from .. import partitions\n") == ["."]
    assert clocks_read(source) == [3]
    assert clocks_read("Field(default=timezone.now)\n") == []
