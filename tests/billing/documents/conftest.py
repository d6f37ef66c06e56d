"""Every invoice that a test of documents makes is recomputed as its customer would, when the test is over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.recomputation import assert_invoices_recompute


@pytest.fixture(autouse=True)
def _every_invoice_is_recomputed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    uses_database = request.node.get_closest_marker("django_db") is not None
    if uses_database:
        request.getfixturevalue("_django_db_helper")
    yield
    if uses_database:
        assert_invoices_recompute(tmp_path)
