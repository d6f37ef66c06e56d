"""The statements of settlement outside the ledger: usage records, failed requests, details and roll-ups.

Keys of roll-ups are sorted, so that two workers that meet in a row wait in the same order. A statement takes a batch.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson

from billing.bulk_rows import fetch_all, insert_rows, run_rows
from billing.settlement.attributed_days import names_anybody
from billing.settlement.events import AcceptedEvent
from billing.usage.budgets import WHOLE_ORGANIZATION
from billing.usage_event import (
    MAX_END_USER_CHARS,
    MAX_SESSION_CHARS,
    MAX_TAG_CHARS,
    USAGE_COUNTS,
    UsageEvent,
)

if TYPE_CHECKING:
    from billing.settlement.corrections import Correction

MS_PER_HOUR = 3_600_000
HOUR_SUMS = (
    "requests",
    "input_tokens",
    "output_tokens",
    "cache_write_tokens",
    "cache_read_tokens",
    "cost_nanos",
    "upstream_cost_nanos",
    "timed_requests",
    "first_byte_ms",
    "duration_ms",
)

# These columns are fields of the event under the same name.
USAGE_FIELDS = {
    "request_id": "uuid",
    "organization_id": "bigint",
    "key_id": "bigint",
    "language_model_id": "bigint",
    "model_id": "text",
    "price_version_id": "bigint",
    "factor_ppm": "bigint",
    "usage_source": "text",
    **dict.fromkeys(USAGE_COUNTS, "bigint"),
    "cost_nanos": "bigint",
    "hold_nanos": "bigint",
    "upstream": "text",
    "upstream_cost_nanos": "bigint",
    "is_streamed": "boolean",
    "admitted_day": "integer",
    "first_byte_ms": "integer",
    "total_ms": "integer",
}
FAILED_FIELDS = {
    "request_id": "uuid",
    "organization_id": "bigint",
    "key_id": "bigint",
    "model_id": "text",
    "error_code": "text",
    "upstream_cost_nanos": "bigint",
    "total_ms": "integer",
}
DETAIL_CHARACTERS = {
    "end_user": MAX_END_USER_CHARS,
    "tag": MAX_TAG_CHARS,
    "session": MAX_SESSION_CHARS,
    "client": 200,
    "stop_reason": 40,
    "upstream_request_id": 100,
}

_usage_fields = attrgetter(*USAGE_FIELDS)
_failed_fields = attrgetter(*FAILED_FIELDS)
_AT = "timestamptz 'epoch' + admitted_at_ms * interval '1 millisecond'"


@dataclass(frozen=True, slots=True)
class OrphanRow:
    """The record of an orphan, as far as a correction needs it. Amounts in nano-dollars."""

    request_id: UUID
    organization_id: int
    key_id: int
    model_id: str
    admitted_at: datetime
    admitted_day: int
    counts: list[int]  # As USAGE_COUNTS names them.
    cost_nanos: int
    upstream_cost_nanos: int
    ledger_transaction_id: int | None

    @property
    def is_loss(self) -> bool:
        """Whether its upstream cost was booked as our own loss, because nobody paid for it."""
        return not self.cost_nanos and self.upstream_cost_nanos > 0


def find_uncorrected_orphans(request_ids: Sequence[str]) -> list[OrphanRow]:
    """Return the records of those requests that are known as orphans only, in the order of their ids."""
    rows = fetch_all(
        f"""SELECT request_id, organization_id, key_id, model_id, admitted_at, admitted_day,
                ARRAY[{", ".join(USAGE_COUNTS)}], cost_nanos, upstream_cost_nanos, ledger_transaction_id
            FROM billing_usagerecord record
            WHERE request_id = ANY(%s::uuid[]) AND usage_source = 'orphan'
              AND NOT EXISTS (SELECT 1 FROM billing_usagecorrection WHERE request_id = record.request_id)
            ORDER BY request_id""",  # noqa: S608  Constants of this file.
        [list(request_ids)],
    )
    return [OrphanRow(*row) for row in rows]


def insert_corrections(
    corrections: Sequence["Correction"], *, transaction_ids: Mapping[str, int], settled_at: datetime
) -> None:
    columns = {
        "request_id": "uuid",
        "organization_id": "bigint",
        "outcome": "text",
        "usage_source": "text",
        **dict.fromkeys(USAGE_COUNTS, "bigint"),
        "cost_before_nanos": "bigint",
        "cost_after_nanos": "bigint",
        "upstream_cost_before_nanos": "bigint",
        "upstream_cost_after_nanos": "bigint",
        "attempts": "jsonb",
        "ledger_transaction_id": "bigint",
        "settled_at": "timestamptz",
    }
    rows = []
    for correction in corrections:
        event = correction.item.event
        rows.append(
            (
                event.request_id,
                event.organization_id,
                event.outcome,
                event.usage_source,
                *_true_counts(event),
                correction.before_nanos,
                correction.after_nanos,
                correction.orphan.upstream_cost_nanos,
                event.upstream_cost_nanos,
                _json(event.attempts),
                transaction_ids.get(event.request_id),
                settled_at,
            )
        )
    insert_rows("billing_usagecorrection", columns, rows)


def correct_hours(corrections: Iterable["Correction"]) -> None:
    """Bring the hours of corrected requests to what is true: the difference to what the orphan added."""
    sums: dict[tuple[int, int, int, str], list[int]] = {}
    for correction in corrections:
        orphan, event = correction.orphan, correction.item.event
        hour = int(orphan.admitted_at.timestamp()) * 1000 // MS_PER_HOUR
        row = sums.setdefault((orphan.organization_id, hour, orphan.key_id, orphan.model_id), [0] * len(HOUR_SUMS))
        counts = [true - known for true, known in zip(_true_counts(event), orphan.counts, strict=True)]
        row[0] -= 0 if correction.item.is_billed else 1
        row[1] += counts[0]
        row[2] += counts[1]
        row[3] += counts[2] + counts[3]
        row[4] += counts[4]
        row[5] += correction.difference_nanos
        row[6] += event.upstream_cost_nanos - orphan.upstream_cost_nanos
    _write_hours(sums)


def correct_budget_days(corrections: Iterable["Correction"]) -> None:
    """Count what more is charged for the day of admission. What is given back is not given back to a budget, as with
    refunds and re-ratings: a day's sum only grows, which is how Redis knows the newer of two that it is told.
    """
    sums: dict[tuple[int, int, int], int] = defaultdict(int)
    for correction in corrections:
        if correction.difference_nanos > 0:
            orphan = correction.orphan
            for key_id in (orphan.key_id, WHOLE_ORGANIZATION):
                sums[orphan.organization_id, key_id, orphan.admitted_day] += correction.difference_nanos
    _write_budget_days(sums)


def _true_counts(event: UsageEvent) -> tuple[int, ...]:
    return tuple(getattr(event, name) for name in USAGE_COUNTS)


def find_failed(request_ids: Sequence[str]) -> set[str]:
    """Return which of these requests are recorded as failed."""
    rows = fetch_all(
        "SELECT encode(uuid_send(request_id), 'hex') FROM billing_failedrequest WHERE request_id = ANY(%s::uuid[])",
        [list(request_ids)],
    )
    return {row[0] for row in rows}


def delete_failed(request_ids: Collection[str]) -> None:
    fetch_all("DELETE FROM billing_failedrequest WHERE request_id = ANY(%s::uuid[])", [list(request_ids)])


def insert_usage(
    billed: Sequence[AcceptedEvent], *, transaction_ids: Mapping[int, int], settled_at: datetime
) -> list[AcceptedEvent]:
    """Insert records and return the events whose record is new. The unique request id is the only de-duplicator."""
    columns = {
        **USAGE_FIELDS,
        "attempts": "text",
        "admitted_at_ms": "bigint",
        "ledger_transaction_id": "bigint",
    }
    selected = ", ".join(USAGE_FIELDS)
    rows = run_rows(
        f"""INSERT INTO billing_usagerecord
                ({selected}, attempts, admitted_at, ledger_transaction_id, settled_at)
            SELECT {selected}, attempts::jsonb, {_AT}, ledger_transaction_id, '{settled_at.isoformat()}'::timestamptz
            FROM {{rows}}
            ON CONFLICT (request_id) DO NOTHING
            RETURNING encode(uuid_send(request_id), 'hex')""",  # noqa: S608  Its parts are constants above.
        columns,
        [
            (
                *_usage_fields(item.event),
                _json(item.event.attempts),
                item.event.admitted_at_ms,
                transaction_ids[item.event.organization_id] if item.event.cost_nanos else None,
            )
            for item in billed
        ],
    )
    new = {row[0] for row in rows}
    return [item for item in billed if item.event.request_id in new]


def insert_failed(failed: Sequence[AcceptedEvent], *, settled_at: datetime) -> list[AcceptedEvent]:
    """Insert failed requests that have no usage record, and return those that are new."""
    selected = ", ".join(FAILED_FIELDS)
    rows = run_rows(
        f"""INSERT INTO billing_failedrequest ({selected}, attempts, admitted_at, settled_at)
            SELECT {selected}, attempts::jsonb, {_AT}, '{settled_at.isoformat()}'::timestamptz
            FROM {{rows}}
            WHERE NOT EXISTS (SELECT 1 FROM billing_usagerecord record WHERE record.request_id = given.request_id)
            ON CONFLICT (request_id) DO NOTHING
            RETURNING encode(uuid_send(request_id), 'hex')""",  # noqa: S608  Its parts are constants above.
        {**FAILED_FIELDS, "attempts": "text", "admitted_at_ms": "bigint"},
        [(*_failed_fields(item.event), _json(item.event.attempts), item.event.admitted_at_ms) for item in failed],
    )
    new = {row[0] for row in rows}
    return [item for item in failed if item.event.request_id in new]


def insert_details(items: Iterable[AcceptedEvent]) -> None:
    """Insert what may be erased, for requests that have any of it. Longer texts are cut: nobody bills by them."""
    rows = []
    for item in items:
        event = item.event
        texts = [getattr(event, name)[:characters] for name, characters in DETAIL_CHARACTERS.items()]
        if any(texts):
            rows.append((event.request_id, event.organization_id, *texts, item.is_billed and names_anybody(event)))
    insert_rows(
        "billing_requestdetail",
        {
            "request_id": "uuid",
            "organization_id": "bigint",
            **dict.fromkeys(DETAIL_CHARACTERS, "text"),
            "is_attributed": "boolean",
        },
        rows,
        # A request that failed first and was billed then has its detail already.
        tail="ON CONFLICT (request_id) DO UPDATE SET is_attributed = true WHERE excluded.is_attributed",
    )


def add_to_hours(inserted: Iterable[AcceptedEvent]) -> None:
    """Add new records to the hourly roll-up."""
    sums: dict[tuple[int, int, int, str], list[int]] = {}
    for item in inserted:
        event = item.event
        key = (event.organization_id, event.admitted_at_ms // MS_PER_HOUR, event.key_id, event.model_id)
        row = sums.get(key)
        if row is None:
            row = sums[key] = [0] * len(HOUR_SUMS)
        _add_event(row, event)
    _write_hours(sums)


def _write_hours(sums: Mapping[tuple[int, int, int, str], Sequence[int]]) -> None:
    names = ", ".join(HOUR_SUMS)
    run_rows(
        f"""INSERT INTO billing_usagehour AS rollup (organization_id, hour, key_id, model_id, {names})
            SELECT organization_id, timestamptz 'epoch' + hour * interval '1 hour', key_id, model_id, {names}
            FROM {{rows}} ORDER BY organization_id, hour, key_id, model_id
            ON CONFLICT (organization_id, hour, key_id, model_id) DO UPDATE
            SET {", ".join(f"{name} = rollup.{name} + excluded.{name}" for name in HOUR_SUMS)}""",  # noqa: S608
        {
            "organization_id": "bigint",
            "hour": "bigint",
            "key_id": "bigint",
            "model_id": "text",
            **dict.fromkeys(HOUR_SUMS, "bigint"),
        },
        [(*key, *row) for key, row in sums.items()],
    )


def _add_event(row: list[int], event: UsageEvent) -> None:
    row[0] += 1
    row[1] += event.input_tokens
    row[2] += event.output_tokens
    row[3] += event.cache_write_5m_tokens + event.cache_write_1h_tokens
    row[4] += event.cache_read_tokens
    row[5] += event.cost_nanos
    row[6] += event.upstream_cost_nanos
    if event.first_byte_ms is not None:
        row[7] += 1
        row[8] += event.first_byte_ms
        row[9] += event.total_ms


def add_to_budget_days(inserted: Iterable[AcceptedEvent]) -> None:
    """Add the cost of new records to the days of their keys and of their organizations."""
    sums: dict[tuple[int, int, int], int] = defaultdict(int)
    latest: dict[tuple[int, int, int], int] = {}
    for item in inserted:
        event = item.event
        if event.cost_nanos:
            for key_id in (event.key_id, WHOLE_ORGANIZATION):
                day = (event.organization_id, key_id, event.admitted_day)
                sums[day] += event.cost_nanos
                latest[day] = max(latest.get(day, 0), event.admitted_at_ms)
    _write_budget_days(sums, latest)


def _write_budget_days(
    sums: Mapping[tuple[int, int, int], int], latest: Mapping[tuple[int, int, int], int] | None = None
) -> None:
    """Add the sums, in nano-dollars, and take over when each day was used last, in ms since 1970."""
    run_rows(
        """INSERT INTO billing_budgetday AS rollup
                (organization_id, key_id, admitted_day, cost_nanos, last_admitted_at)
            SELECT organization_id, key_id, admitted_day, cost_nanos,
                timestamptz 'epoch' + latest_ms * interval '1 ms'
            FROM {rows} ORDER BY 1, 2, 3
            ON CONFLICT (organization_id, key_id, admitted_day) DO UPDATE
            SET cost_nanos = rollup.cost_nanos + excluded.cost_nanos,
                last_admitted_at = greatest(rollup.last_admitted_at, excluded.last_admitted_at)""",
        {
            "organization_id": "bigint",
            "key_id": "bigint",
            "admitted_day": "integer",
            "cost_nanos": "bigint",
            "latest_ms": "bigint",
        },
        [(*day, nanos, latest.get(day) if latest else None) for day, nanos in sums.items()],
    )


def _json(value: Any) -> str:
    return "[]" if not value else orjson.dumps(value).decode()
