"""Reads of past usage by pages and the API, from a read replica where one is set up and keeps up; else from Postgres.

Only what shows usage asks for it by read(). What decides anything (admission, settlement, budgets, balances, alerts,
documents) never does: a replica is behind. One that is away, or too far behind, is passed over for a while.
"""

import logging
import threading
import time
from typing import TypeVar

from django.conf import settings
from django.db import Error, connections
from django.db.models import Model, QuerySet

ALIAS = "replica"
MAIN = "default"
# So old may be what is known of the replica, and for so long it is left alone after it did not answer or was behind.
KNOWN_SECONDS = 1.0
LEFT_ALONE_SECONDS = 15.0

Row = TypeVar("Row", bound=Model)
logger = logging.getLogger(__name__)


class Standing:
    """What this process last knew of the replica. One thread looks; the others go by what was known before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._looks_again_at = 0.0
        self._is_good = False

    def is_good(self) -> bool:
        now = time.monotonic()
        if now >= self._looks_again_at and self._lock.acquire(blocking=False):
            try:
                self._look()
                self._looks_again_at = time.monotonic() + (KNOWN_SECONDS if self._is_good else LEFT_ALONE_SECONDS)
            finally:
                self._lock.release()
        return self._is_good

    def _look(self) -> None:
        was_good = self._is_good
        try:
            lag = lag_seconds()
            self._is_good = lag <= settings.REPLICA_MAX_LAG_SECONDS
            problem = f"it is {lag:.0f} s behind"
        except Error as error:
            self._is_good = False
            problem = " ".join(str(error).split())
            connections[ALIAS].close()
        if was_good and not self._is_good:
            logger.warning("Usage is read from the primary: the read replica is passed over, %s.", problem)


_standing = Standing()


def is_configured() -> bool:
    return ALIAS in settings.DATABASES


def read(model: type[Row]) -> QuerySet[Row]:
    """Return the rows of a table of past usage, as a reader sees them."""
    return model._default_manager.using(ALIAS if is_configured() and _standing.is_good() else MAIN)


def lag_seconds() -> float:
    """Return how far the replica is behind: the age of the last transaction that it has. Raises Error.

    The jobs commit something every second, so this also tells of a replica that receives nothing any more.
    """
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(
            "SELECT pg_is_in_recovery(), coalesce(extract(epoch FROM now() - pg_last_xact_replay_timestamp()), 0)"
        )
        is_replica, lag = cursor.fetchone()
    return max(0.0, float(lag)) if is_replica else 0.0
