"""Proven months: what was checked and does not change is digested, month by month, and need not be read each night.

A month is proven when it has been over for PROVE_AFTER: by then its documents are written, and what gateways had in
their spools has come. All checks are run on it; where none finds a break, its rows that never change are digested.
What comes later for a proven month (a late record, a correction) is posted by transactions of now, which belong to the
month of now. Digests are of rows as Postgres writes them, in the order of their keys; `actor`, `created_by` and
`approved_by` are left out, because an erased person's name is taken out of them.
"""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import orjson
from django.db import IntegrityError, connection, transaction

from billing.bulk_rows import fetch_all
from billing.checks.books import Books, Outcome, Span
from billing.checks.invariant import Check, run_checks
from billing.documents.periods import Month, month_of
from billing.models import ProvenMonth

PROVE_AFTER = timedelta(days=10)
# Each proven month is checked again, wholly and against its digests, once in so many nights.
NIGHTS = 14
FORM = 1
# How Postgres writes values as text, whatever a server or a user is set to.
AS_TEXT = (
    "SET LOCAL TimeZone = 'UTC'",
    "SET LOCAL DateStyle = 'ISO, YMD'",
    "SET LOCAL bytea_output = 'hex'",
    "SET LOCAL IntervalStyle = 'postgres'",
)
DIGESTED: dict[int, dict[str, str]] = {
    1: {
        "billing_ledgertransaction": """SELECT id, kind, idempotency_key, input_sha256, organization_id, reason,
                created_at, entry_count
            FROM billing_ledgertransaction WHERE POSTED(id) ORDER BY id""",
        "billing_ledgerentry": """SELECT id, transaction_id, account_id, seq, amount_nanos, balance_after_nanos
            FROM billing_ledgerentry WHERE POSTED(transaction_id) ORDER BY id""",
        "billing_creditlotentry": """SELECT id, lot_id, transaction_id, amount_nanos, remaining_after_nanos
            FROM billing_creditlotentry WHERE POSTED(transaction_id) ORDER BY id""",
        "billing_usagerecord": """SELECT request_id, organization_id, key_id, language_model_id, model_id,
                price_version_id, factor_ppm, usage_source, input_tokens, output_tokens, cache_write_5m_tokens,
                cache_write_1h_tokens, cache_read_tokens, images, web_searches, cost_nanos, hold_nanos, upstream,
                upstream_cost_nanos, attempts, is_streamed, admitted_at, admitted_day, first_byte_ms, total_ms,
                ledger_transaction_id, settled_at
            FROM billing_usagerecord record WHERE SETTLED(record) ORDER BY request_id""",
        "billing_usagecorrection": """SELECT request_id, organization_id, outcome, usage_source, input_tokens,
                output_tokens, cache_write_5m_tokens, cache_write_1h_tokens, cache_read_tokens, images, web_searches,
                cost_before_nanos, cost_after_nanos, upstream_cost_before_nanos, upstream_cost_after_nanos, attempts,
                ledger_transaction_id, settled_at
            FROM billing_usagecorrection correction WHERE SETTLED(correction) ORDER BY request_id""",
        # What the rows above point to: the terms of accounts, lots and prices, which are fixed once they are used.
        "billing_ledgeraccount": """SELECT id, organization_id, kind, shard, payment_provider
            FROM billing_ledgeraccount WHERE id IN (SELECT account_id FROM billing_ledgerentry
                WHERE POSTED(transaction_id)) ORDER BY id""",
        "billing_creditlot": """SELECT id, organization_id, kind, origin, amount_nanos, priority, expires_at, created_at
            FROM billing_creditlot WHERE id IN (SELECT lot_id FROM billing_creditlotentry
                WHERE POSTED(transaction_id)) ORDER BY id""",
        "billing_priceversion": """SELECT id, language_model_id, upstream_id, effective_from, minimum_charge_nanos,
                source, source_date, created_at, approved_at
            FROM billing_priceversion WHERE id IN (SELECT price_version_id FROM billing_usagerecord record
                WHERE SETTLED(record)) ORDER BY id""",
        "billing_pricecomponent": """SELECT id, price_version_id, component, prompt_tokens_from, picos_per_unit
            FROM billing_pricecomponent WHERE price_version_id IN (SELECT price_version_id
                FROM billing_usagerecord record WHERE SETTLED(record)) ORDER BY id""",
    },
}


def prove_due_months(checks: Sequence[Check], *, now: datetime) -> Iterator[tuple[Month, Sequence[str]]]:
    """Prove the months that are over and not proven, one by one; yield each with its breaks: with none it is proven.

    It stops at a month with breaks, because months follow each other. Twice at once proves once.
    """
    for month, span in open_months(now=now):
        if span.ends is None or now - span.ends < PROVE_AFTER:
            return
        breaks = _prove(month, span, [check for check in checks if not check.is_whole])
        yield month, breaks
        if breaks:
            return


def open_months(*, now: datetime) -> list[tuple[Month, Span]]:
    """Return the months that are not proven, each with its part of the books: the last one is without an end."""
    last = ProvenMonth.objects.order_by("-month").first()
    after = last.last_transaction_id if last else None
    newest: dict[Month, int] = {
        month_of(at.astimezone(UTC)): highest
        for at, highest in fetch_all(
            Books(Span(after)).sql(
                """SELECT date_trunc('month', created_at, 'UTC'), max(id) FROM billing_ledgertransaction
                    WHERE POSTED(id) GROUP BY 1 ORDER BY 1"""
            )
        )
    }
    begins = last.ends if last else None
    current = max([*newest, month_of(now)])
    month = month_of(last.ends) if last else min([*newest, current])
    months = []
    while month < current:
        # Nothing in it: it ends where the month before ended.
        highest = max(newest.get(month, 0), after or 0)
        months.append((month, Span(after, highest, begins, month.ends)))
        after, begins, month = highest, month.ends, month.next
    return [*months, (month, Span(after, None, begins, None))]


def proven_months(*, night: date | None = None) -> list[ProvenMonth]:
    """Return the proven months, oldest first; with `night` those whose turn it is then."""
    months = list(ProvenMonth.objects.order_by("month"))
    if night is None:
        return months
    return [row for number, row in enumerate(months) if number % NIGHTS == night.toordinal() % NIGHTS]


def span_of(row: ProvenMonth) -> Span:
    return Span(row.after_transaction_id, row.last_transaction_id, row.begins, row.ends)


def proven_check(months: Sequence[ProvenMonth]) -> Check:
    """Return the check that these months are as they were proven, and that no row about any month was changed."""
    return Check("I17", "proven months are as they were proven", lambda _: _compare(months), is_whole=True)


def _prove(month: Month, span: Span, checks: Sequence[Check]) -> Sequence[str]:
    """Check one month and keep its digests, read on the same snapshot. Return what is broken."""
    digests: dict[str, Any] = {}

    def run(books: Books) -> Outcome:
        digests.update(_digest(books, FORM))
        return Outcome(0)

    breaks = run_checks([*checks, Check("I17", "digests", run)], [span]).breaks
    if breaks:
        return breaks
    row = ProvenMonth(
        month=str(month),
        after_transaction_id=span.after_transaction_id,
        last_transaction_id=span.last_transaction_id or 0,
        begins=span.begins,
        ends=month.ends,
        form=FORM,
        digests=digests,
    )
    row.sha256 = _sha256(row, ProvenMonth.objects.order_by("-month").first())
    try:
        with transaction.atomic():
            row.save(force_insert=True)
    except IntegrityError:
        if not ProvenMonth.objects.filter(month=row.month).exists():
            raise
    return []


def _compare(months: Sequence[ProvenMonth]) -> Outcome:
    lines: list[str] = []
    before: ProvenMonth | None = None
    for row in proven_months():
        follows = before is None or (row.after_transaction_id, row.begins) == (before.last_transaction_id, before.ends)
        if not follows or row.sha256 != _sha256(row, before):
            lines.append(f"proven month {row.month}: what was written down of it, or of the one before, was changed")
        before = row
    rows = 0
    for row in months:
        found = _digest(Books(span_of(row)), row.form)
        for table, digest in found.items():
            rows += digest["rows"]
            proven = row.digests.get(table, {"rows": 0, "sha256": ""})
            if digest["rows"] != proven["rows"]:
                lines.append(f"proven month {row.month}: {table} has {digest['rows']} rows, and had {proven['rows']}")
            elif digest["sha256"] != proven["sha256"]:
                lines.append(f"proven month {row.month}: one of {digest['rows']} rows of {table} is not what it was")
    return Outcome(rows, lines)


def _digest(books: Books, form: int) -> dict[str, Any]:
    """Return the number of rows and the SHA-256 of each table's rows. They pass through: memory stays flat."""
    digests = {}
    with transaction.atomic(), connection.cursor() as cursor:
        for setting in AS_TEXT:
            cursor.execute(setting)
        for table, query in DIGESTED[form].items():
            sha256 = hashlib.sha256()
            with cursor.copy(f"COPY ({books.sql(query)}) TO STDOUT") as rows:
                for block in rows:
                    sha256.update(block)
            digests[table] = {"rows": cursor.rowcount, "sha256": sha256.hexdigest()}
    return digests


def _sha256(row: ProvenMonth, before: ProvenMonth | None) -> str:
    """Return the digest of all that a row says, and of the row before it."""
    says = [
        before.sha256 if before else "",
        row.month,
        row.after_transaction_id,
        row.last_transaction_id,
        row.begins and row.begins.astimezone(UTC).isoformat(),
        row.ends.astimezone(UTC).isoformat(),
        row.form,
        row.digests,
    ]
    return hashlib.sha256(orjson.dumps(says, option=orjson.OPT_SORT_KEYS)).hexdigest()
