"""The statement of an organization for a period: opening balance, what was posted, closing balance.

Usage is summed by day and model, since a row for each second of use is no statement; everything else stands by itself
until there is too much of a kind, which then is summed by day too. Every figure comes from ledger entries, and the
closing balance from the entry that recorded it: a statement that did not add up would not be made.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from accounts.models import Organization
from billing.bulk_rows import fetch_all
from billing.documents.posted import RECORDS_OF_RANGE, PostedRange, balance_after, debited_nanos, usage_bounds
from billing.models import LedgerTransaction

MAX_SINGLE_POSTINGS = 500  # Of one kind in a period; beyond that the kind is summed by day.
USAGE = LedgerTransaction.Kind.USAGE.value


class StatementError(Exception):
    """The rows do not lead from the opening balance to the closing one: the ledger is broken, or the range is."""


@dataclass(frozen=True, slots=True)
class StatementRow:
    """One posting, or a sum of a day: then `transaction_id` is None and `count` says of how many.

    `count` is of requests for usage, else of transactions. `model_id` is empty for what is no usage.
    """

    day: date
    kind: str
    label: str
    amount_nanos: int
    count: int
    model_id: str = ""
    transaction_id: int | None = None
    posted_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class StatementDay:
    """What was posted on one UTC day, and the balance at its end."""

    day: date
    rows: Sequence[StatementRow]
    balance_nanos: int

    @property
    def amount_nanos(self) -> int:
        return sum(row.amount_nanos for row in self.rows)


@dataclass(frozen=True, slots=True)
class KindTotal:
    kind: str
    label: str
    amount_nanos: int


@dataclass(frozen=True, slots=True)
class Statement:
    """Amounts in nano-dollars; opening + the amounts of all days = closing."""

    organization: Organization
    posted: PostedRange
    opening_nanos: int
    closing_nanos: int
    days: Sequence[StatementDay]

    @property
    def rows(self) -> list[StatementRow]:
        return [row for day in self.days for row in day.rows]

    @property
    def totals(self) -> list[KindTotal]:
        """What each kind of posting came to, in the order in which kinds are named."""
        sums: dict[str, int] = defaultdict(int)
        for row in self.rows:
            sums[row.kind] += row.amount_nanos
        return [KindTotal(kind, _label(kind), sums[kind]) for kind in LedgerTransaction.Kind.values if kind in sums]


def write_statement(organization: Organization, posted: PostedRange) -> Statement:
    """Return the statement of a range of an organization's transactions. Raises StatementError."""
    opening, closing = balance_after(organization.pk, posted.after_id), balance_after(organization.pk, posted.last_id)
    by_day: dict[date, list[StatementRow]] = defaultdict(list)
    for row in [*_read_postings(posted), *_read_usage(posted)]:
        by_day[row.day].append(row)
    days = []
    balance = opening
    for day in sorted(by_day):
        balance += sum(row.amount_nanos for row in by_day[day])
        days.append(StatementDay(day, by_day[day], balance))
    if balance != closing:
        raise StatementError(
            f"{organization}: {opening} nanos and the postings of {posted.begins:%Y-%m-%d} to {posted.ends:%Y-%m-%d}"
            f" come to {balance}, the ledger says {closing}."
        )
    return Statement(organization, posted, opening, closing, days)


def _read_usage(posted: PostedRange) -> list[StatementRow]:
    bounds = usage_bounds(posted)
    rows = fetch_all(
        f"""SELECT (record.settled_at AT TIME ZONE 'UTC')::date, record.model_id, count(*),
                sum(record.cost_nanos)::bigint
            FROM billing_usagerecord record WHERE {RECORDS_OF_RANGE} GROUP BY 1, 2 ORDER BY 1, 2""",  # noqa: S608
        {**posted.parameters, **bounds.parameters},
    )
    total = sum(row[3] for row in rows)
    if total != debited_nanos(posted):
        raise StatementError(f"Usage records of {total} nanos do not account for debits of {debited_nanos(posted)}.")
    return [
        StatementRow(day, USAGE, _label(USAGE), -nanos, count, model_id=model_id)
        for day, model_id, count, nanos in rows
    ]


_POSTINGS = """
    SELECT ledger.id, ledger.kind, ledger.created_at, ledger.reason, (SELECT coalesce(sum(amount_nanos), 0)
            FROM billing_ledgerentry entry JOIN billing_ledgeraccount account ON account.id = entry.account_id
            WHERE transaction_id = ledger.id AND account.organization_id = ledger.organization_id)::bigint AS nanos
    FROM billing_ledgertransaction ledger
    WHERE ledger.organization_id = %(organization_id)s AND ledger.id > %(after_id)s AND ledger.id <= %(last_id)s
      AND ledger.kind <> 'usage'"""


def _read_postings(posted: PostedRange) -> list[StatementRow]:
    """Return what is no usage: each posting, or the sums of its days where there are too many of its kind."""
    counts = fetch_all(
        f"SELECT kind, count(*) FROM ({_POSTINGS}) posting GROUP BY kind",  # noqa: S608  A constant above.
        posted.parameters,
    )
    many = [kind for kind, count in counts if count > MAX_SINGLE_POSTINGS]
    parameters: dict[str, Any] = {**posted.parameters, "many": many}
    rows = [
        StatementRow(at.date(), kind, _label(kind), nanos, 1, "", transaction_id, at, reason)
        for transaction_id, kind, at, reason, nanos in fetch_all(
            f"SELECT * FROM ({_POSTINGS}) posting WHERE kind <> ALL(%(many)s) ORDER BY id",  # noqa: S608
            parameters,
        )
    ]
    if many:
        rows += [
            StatementRow(day, kind, _label(kind), nanos, count)
            for day, kind, count, nanos in fetch_all(
                f"""SELECT (created_at AT TIME ZONE 'UTC')::date, kind, count(*), sum(nanos)::bigint
                    FROM ({_POSTINGS}) posting WHERE kind = ANY(%(many)s) GROUP BY 1, 2 ORDER BY 1, 2""",  # noqa: S608
                parameters,
            )
        ]
    return rows


def _label(kind: str) -> str:
    return str(LedgerTransaction.Kind(kind).label)
