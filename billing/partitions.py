"""Month partitions of the usage table. They are made ahead of time; rows of skewed clocks fall into the default one."""

from datetime import UTC, datetime

from django.db import connection
from django.db.backends.utils import CursorWrapper

from billing.request_id import first_id_at

TABLE = "billing_usagerecord"
MONTHS_AHEAD = 3


def month_start(year: int, month: int) -> datetime:
    """Return the first moment of a month, UTC; `month` may be over 12 and counts on into the next years."""
    return datetime(year + (month - 1) // 12, (month - 1) % 12 + 1, 1, tzinfo=UTC)


def refuse_truncate(cursor: CursorWrapper, partition: str) -> None:
    """Let Postgres refuse to empty a partition by itself, once the migration that says how has run."""
    cursor.execute("SELECT to_regproc('ledger_refuse_truncate')")
    if cursor.fetchone()[0] is not None:
        cursor.execute(
            f"CREATE TRIGGER never_emptied BEFORE TRUNCATE ON {partition} EXECUTE FUNCTION ledger_refuse_truncate()"
        )


def create_partitions(*, now: datetime) -> list[str]:
    """Create the partitions from this month to MONTHS_AHEAD that are not there yet, and return their names."""
    created = []
    for offset in range(MONTHS_AHEAD + 1):
        start, end = (month_start(now.year, now.month + offset + step) for step in (0, 1))
        name = f"{TABLE}_{start:%Y_%m}"
        with connection.cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s)", [name])
            if cursor.fetchone()[0] is not None:
                continue
            cursor.execute(
                f"CREATE TABLE {name} PARTITION OF {TABLE} FOR VALUES FROM ('{first_id_at(start)}')"
                f" TO ('{first_id_at(end)}')"
            )
            refuse_truncate(cursor, name)
        created.append(name)
    return created
