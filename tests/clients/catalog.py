"""Language models that a test sells beside those of the default catalog."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.live_stack import ROOT, LiveStack

DEFAULT_CATALOG = ROOT / "billing/catalog/default.toml"


@contextmanager
def also_selling(stack: LiveStack, entries: str, folder: Path) -> Iterator[None]:
    """Load the default catalog with `entries` behind it: what a catalog does not name is disabled."""
    path = folder / "catalog.toml"
    path.write_text(DEFAULT_CATALOG.read_text() + entries)
    stack.manage("load_catalog", str(path), "--approve")
    yield
    stack.manage("load_catalog", str(DEFAULT_CATALOG), "--approve")
