"""Postings of another time: the ledger goes by Postgres' clock, which a test cannot set, so it is told another here."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from unittest.mock import patch

from billing.ledger import rows

_allocate = rows.allocate_ids


@contextmanager
def posted_at(moment: datetime) -> Iterator[None]:
    """Let everything that this thread posts within be posted at this moment."""
    own = threading.get_ident()

    def allocate(table: str, count: int) -> tuple[list[int], datetime]:
        ids, now = _allocate(table, count)
        return ids, moment if threading.get_ident() == own else now

    with patch.object(rows, "allocate_ids", allocate):
        yield
