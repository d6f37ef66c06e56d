"""docs/settings.md names every environment variable that the settings read, no other, and each true default."""

import ast
import re
from pathlib import Path

import pytest

from crossmodel_site import environment

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "settings.md"
READERS = {node for node in dir(environment) if node.startswith("read_") and node != "read_env_file"}
ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]+)` \| (.*?) \| (.+?) \|$", re.MULTILINE)


def read_settings() -> dict[str, ast.expr | None]:
    """Return each variable with the expression of its default."""
    trees = [ast.parse((ROOT / "crossmodel_site" / name).read_text()) for name in ("settings.py", "people_settings.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    found: dict[str, ast.expr | None] = {}
    for call in calls:
        if isinstance(call.func, ast.Name) and call.func.id in READERS:
            name = ast.literal_eval(call.args[0])
            defaults = [*call.args[1:], *(word.value for word in call.keywords if word.arg == "default")]
            found[name] = defaults[0] if defaults else None
    return found


def read_document() -> dict[str, str]:
    return {name: default for name, default, _ in ROW.findall(DOCUMENT.read_text())}


def constant_of(default: ast.expr | None) -> str | None:
    """Return a default as the document writes it; None when it is no constant, and the document says it in words."""
    if default is None or any(isinstance(node, ast.Name | ast.Call | ast.JoinedStr) for node in ast.walk(default)):
        return None
    value = eval(compile(ast.Expression(default), "default", "eval"), {})  # noqa: S307  Constants of our own source.
    if isinstance(value, bool):
        return "1" if value else "0"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def test_every_setting_is_documented_and_nothing_else() -> None:
    assert sorted(read_document()) == sorted(read_settings())
    assert len(read_settings()) > 30


@pytest.mark.parametrize(
    ("name", "default"),
    sorted((name, constant_of(node)) for name, node in read_settings().items() if constant_of(node)),
)
def test_the_documented_default_is_the_true_one(name: str, default: str) -> None:
    assert read_document()[name].strip("`") == default
