"""I18: ledger transactions are as they were posted, by a program that had the signing key (billing/ledger/seals.py)."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import orjson

from billing.checks.books import MAX_BREAKS_LISTED, Books, Outcome
from billing.checks.invariant import Check
from billing.checks.transactions import TRANSACTIONS
from billing.ledger.seals import Sealed, is_seal_of, open_keys

# A lot belongs to the transaction that opened it: at its moment, by its whole amount. The rows of each transaction are
# looked up by its index: joined to sums of all, they would be summed anew for each where tables are taken for small.
AS_POSTED = """
    SELECT ledger.id, ledger.kind, ledger.idempotency_key, ledger.input_sha256, ledger.organization_id, ledger.actor,
        ledger.reason, ledger.created_at, ledger.seal, entries.listed, lots.listed, lots.opened
    FROM billing_ledgertransaction ledger
    CROSS JOIN LATERAL (SELECT string_agg(account_id || ':' || seq || ':' || amount_nanos || ':'
            || balance_after_nanos, ',') AS listed
        FROM billing_ledgerentry WHERE transaction_id = ledger.id) entries
    CROSS JOIN LATERAL (SELECT string_agg(entry.lot_id || ':' || entry.amount_nanos || ':'
                || entry.remaining_after_nanos, ',') AS listed,
            jsonb_agg(jsonb_build_array(lot.id, lot.kind, lot.origin, lot.priority,
                (extract(epoch FROM lot.expires_at) * 1000000)::bigint))
                FILTER (WHERE entry.amount_nanos = lot.amount_nanos AND lot.created_at = ledger.created_at
                    AND entry.remaining_after_nanos = lot.amount_nanos) AS opened
        FROM billing_creditlotentry entry JOIN billing_creditlot lot ON lot.id = entry.lot_id
        WHERE entry.transaction_id = ledger.id) lots
    WHERE ledger.seal IS NOT NULL AND POSTED(ledger.id)
    ORDER BY ledger.id
"""
# Without a seal may be what was there before there were seals, and for a day what processes of the version before post.
UNSEALED = """
    SELECT format('transaction %s of organization %s, kind %s, has no seal', ledger.id,
            coalesce(ledger.organization_id::text, 'none'), ledger.kind)
    FROM billing_ledgertransaction ledger
    JOIN (SELECT after_transaction_id, created_at + interval '1 day' AS ends FROM billing_ledgersealkey
        ORDER BY id LIMIT 1) first ON ledger.id > first.after_transaction_id
    WHERE ledger.seal IS NULL AND POSTED(ledger.id) AND (ledger.created_at > first.ends
        OR EXISTS (SELECT 1 FROM billing_ledgertransaction sealed WHERE sealed.id < ledger.id
            AND sealed.seal IS NOT NULL AND sealed.created_at > first.ends))
    ORDER BY ledger.id
"""


def transactions_are_as_posted(books: Books) -> Outcome:
    wrong = list(islice(_wrong_seals(books), MAX_BREAKS_LISTED))
    unsealed = books.judge(TRANSACTIONS, UNSEALED)
    return Outcome(unsealed.rows, [*wrong, *unsealed.breaks])


def read_sealed(books: Books) -> Iterator[tuple[Sealed, bytes]]:
    """Yield each transaction that has a seal as its rows are now, with its seal."""
    for row in books.stream(AS_POSTED):
        *head, seal, entries, lot_entries, opened = row
        transaction_id, kind, key, input_sha256, organization_id, actor, reason, created_at = head
        sealed = Sealed(
            transaction_id,
            kind,
            key,
            bytes(input_sha256),
            organization_id,
            actor,
            reason,
            created_at,
            entries=_rows(entries),
            lot_entries=_rows(lot_entries),
            lots=[tuple(lot) for lot in orjson.loads(opened or "[]")],
        )
        yield sealed, bytes(seal)


def _wrong_seals(books: Books) -> Iterator[str]:
    keys = open_keys()
    for sealed, seal in read_sealed(books):
        if not is_seal_of(keys, seal, sealed):
            yield (
                f"transaction {sealed.transaction_id} of organization {sealed.organization_id or 'none'}, kind"
                f" {sealed.kind}, is not as it was posted, or was posted under another DJANGO_SECRET_KEY"
            )


def _rows(listed: str | None) -> list[Any]:
    return [tuple(map(int, row.split(":"))) for row in listed.split(",")] if listed else []


SEAL_CHECKS = (Check("I18", "ledger transactions are as they were posted", transactions_are_as_posted),)
