"""Month partitions of the usage table. They are made ahead of time; rows of skewed clocks fall into the default one.

A row that lies there moves into the partition of its month when that is made. A row of a month long past stays: no
partition is ever made for it, and nothing needs one.
"""

import logging
from datetime import UTC, datetime
from itertools import pairwise
from uuid import UUID

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

from billing.request_id import first_id_at

TABLE = "billing_usagerecord"
DEFAULT_PARTITION = f"{TABLE}_default"
MONTHS_AHEAD = 3
LOCK_SECONDS = 2  # How long settlement may wait behind us for a lock that a long query keeps us from.

logger = logging.getLogger(__name__)


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
    return [name for name, start, end in months_due(now) if _create_partition(name, start, end)]


def missing_partitions(*, now: datetime) -> list[str]:
    """Return the names of the partitions that should be there and are not."""
    with connection.cursor() as cursor:
        return [name for name, _, _ in months_due(now) if not _exists(cursor, name)]


def months_due(now: datetime) -> list[tuple[str, datetime, datetime]]:
    """Return name, start and end of each partition that should be there."""
    months = [month_start(now.year, now.month + offset) for offset in range(MONTHS_AHEAD + 2)]
    return [(f"{TABLE}_{start:%Y_%m}", start, end) for start, end in pairwise(months)]


def _create_partition(name: str, start: datetime, end: datetime) -> bool:
    """Create one partition with what the default one holds of its month; return whether it was missing.

    Everything happens in one transaction. Only the default partition is locked against all others, and it is locked
    first: whoever waits for it holds nothing that is wanted here. Its rows are moved, unchanged, while the triggers
    that refuse a deletion are off; nobody else can reach it in that time.
    """
    first, last = first_id_at(start), first_id_at(end)
    with transaction.atomic(), connection.cursor() as cursor:
        if _exists(cursor, name):
            return False
        cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
        cursor.execute(f"LOCK TABLE {DEFAULT_PARTITION} IN ACCESS EXCLUSIVE MODE")
        if _exists(cursor, name):
            return False  # Another worker was first.
        cursor.execute(f"CREATE TABLE {name} (LIKE {TABLE} INCLUDING ALL)")
        if _has_rows(cursor, first, last):
            columns = _columns(cursor)
            cursor.execute(f"ALTER TABLE {DEFAULT_PARTITION} DISABLE TRIGGER USER")
            cursor.execute(
                f"""WITH moved AS (DELETE FROM {DEFAULT_PARTITION}
                        WHERE request_id >= %s AND request_id < %s RETURNING {columns})
                    INSERT INTO {name} ({columns}) SELECT {columns} FROM moved""",  # noqa: S608  Names of ours.
                [first, last],
            )
            logger.warning("%d records with times of wrong clocks were moved into %s.", cursor.rowcount, name)
            cursor.execute(f"ALTER TABLE {DEFAULT_PARTITION} ENABLE TRIGGER USER")
        cursor.execute(f"ALTER TABLE {TABLE} ATTACH PARTITION {name} FOR VALUES FROM ('{first}') TO ('{last}')")
        refuse_truncate(cursor, name)
        cursor.execute("SET LOCAL lock_timeout = DEFAULT")
    return True


def _exists(cursor: CursorWrapper, name: str) -> bool:
    cursor.execute("SELECT to_regclass(%s)", [name])
    return cursor.fetchone()[0] is not None


def _has_rows(cursor: CursorWrapper, first: UUID, last: UUID) -> bool:
    cursor.execute(
        f"SELECT EXISTS (SELECT 1 FROM {DEFAULT_PARTITION}"  # noqa: S608  A constant above.
        " WHERE request_id >= %s AND request_id < %s)",
        [first, last],
    )
    return bool(cursor.fetchone()[0])


def _columns(cursor: CursorWrapper) -> str:
    """Return the names of the columns: their order may differ from one partition to another."""
    cursor.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped"
        " ORDER BY attnum",
        [TABLE],
    )
    return ", ".join(f'"{row[0]}"' for row in cursor.fetchall())
