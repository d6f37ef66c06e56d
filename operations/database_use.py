"""How many connections Postgres has, and may have."""

from collections.abc import Mapping
from typing import NamedTuple

from django.db import connection

STATES = ("active", "idle", "idle in transaction")
OTHER = "other"


class DatabaseUse(NamedTuple):
    """`by_state` counts the connections of clients, to whichever database. What has no name among STATES is "other"."""

    by_state: Mapping[str, int]
    max_connections: int

    @property
    def connections(self) -> int:
        return sum(self.by_state.values())


def read_database_use() -> DatabaseUse:
    """Return what the server of the books has in use."""
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT coalesce(state, ''), count(*),
                    current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                FROM pg_stat_activity WHERE backend_type = 'client backend' GROUP BY 1"""
        )
        rows = cursor.fetchall()
    by_state = dict.fromkeys((*STATES, OTHER), 0)
    for state, count, _ in rows:
        by_state[state if state in STATES else OTHER] += count
    return DatabaseUse(by_state, rows[0][2])
