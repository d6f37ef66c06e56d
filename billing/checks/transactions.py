"""Ledger transactions are what they say: whole, of their kind, and about the request, refund or lot that they name."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any
from uuid import UUID

from billing.bulk_rows import fetch_all
from billing.checks.books import MAX_BREAKS_LISTED, Books, Outcome
from billing.checks.invariant import Check
from billing.credit.top_ups import lot_inputs
from billing.ledger.book import input_digest
from billing.models import LedgerTransaction
from billing.money import say_usd
from billing.shards import SHARD_COUNT

TRANSACTIONS = "SELECT count(*) FROM billing_ledgertransaction WHERE POSTED(id)"
RECORDS_PER_QUERY = 5_000
OWN = ("prepaid", "promotional", "receivable")
# The accounts that a transaction of each kind may touch; docs/money.md says what it posts there.
ACCOUNTS_OF_KIND = {
    "usage": (*OWN, "revenue"),
    "top_up": ("prepaid", "receivable", "cash", "promotion_expense"),
    "promotion": ("promotional", "receivable", "promotion_expense"),
    "adjustment": (*OWN, "revenue"),
    "expiry": (*OWN, "breakage", "promotion_expense"),
    "refund": (*OWN, "revenue"),
    "rerating": (*OWN, "revenue"),
    "orphan_loss": ("orphan_loss", "upstream_cost"),
    "correction": (*OWN, "revenue"),
    "reversal": (*OWN, "cash", "promotion_expense"),
    "tax": ("prepaid", "receivable", "tax_owed"),
}


def transactions_are_whole(books: Books) -> Outcome:
    """A transaction says how many entries it was written with. Older ones do not say."""
    return books.judge(
        TRANSACTIONS,
        """SELECT format('transaction %s was written with %s entries and has %s', id, entry_count, entries) FROM (
                SELECT ledger.id, ledger.entry_count, coalesce(counted.entries, 0) AS entries
                FROM billing_ledgertransaction ledger
                LEFT JOIN (SELECT transaction_id, count(*) AS entries FROM billing_ledgerentry
                    WHERE POSTED(transaction_id) GROUP BY transaction_id) counted ON counted.transaction_id = ledger.id
                WHERE entry_count IS NOT NULL AND POSTED(ledger.id)) compared
            WHERE entry_count <> entries ORDER BY id""",
    )


def transactions_touch_accounts_of_their_kind(books: Books) -> Outcome:
    allowed = ", ".join(f"('{kind}', '{account}')" for kind, names in ACCOUNTS_OF_KIND.items() for account in names)
    return books.judge(
        "SELECT count(*) FROM billing_ledgerentry WHERE POSTED(transaction_id)",
        f"""SELECT format('transaction %s of kind %s touches an account of kind %s', ledger.id, ledger.kind,
                account.kind)
            FROM billing_ledgerentry entry
            JOIN billing_ledgertransaction ledger ON ledger.id = entry.transaction_id
            JOIN billing_ledgeraccount account ON account.id = entry.account_id
            WHERE (ledger.kind, account.kind) NOT IN ({allowed}) AND POSTED(entry.transaction_id)
              AND POSTED(ledger.id) ORDER BY ledger.id""",  # noqa: S608  Constants.
        f"""SELECT format('transaction %s of organization %s touches the system''s accounts of shard %s', ledger.id,
                ledger.organization_id, account.shard)
            FROM billing_ledgerentry entry
            JOIN billing_ledgertransaction ledger ON ledger.id = entry.transaction_id
            JOIN billing_ledgeraccount account ON account.id = entry.account_id
            WHERE ledger.organization_id IS NOT NULL AND account.organization_id IS NULL
              AND POSTED(entry.transaction_id) AND POSTED(ledger.id)
              AND account.shard <> ledger.organization_id % {SHARD_COUNT} ORDER BY ledger.id""",  # noqa: S608
    )


def debits_name_their_requests(books: Books) -> Outcome:
    return books.judge(
        "SELECT count(*) FROM billing_ledgertransaction WHERE kind = 'usage' AND POSTED(id)",
        """SELECT format('transaction %s is %s, and no record of that request names it', id, idempotency_key)
            FROM billing_ledgertransaction ledger
            WHERE kind = 'usage' AND POSTED(ledger.id) AND NOT EXISTS (SELECT 1 FROM billing_usagerecord record
                WHERE record.ledger_transaction_id = ledger.id AND POSTED(record.ledger_transaction_id)
                  AND 'usage:' || replace(record.request_id::text, '-', '') = ledger.idempotency_key)
            ORDER BY id""",
        """SELECT format('transaction %s is %s and of kind %s', id, idempotency_key, kind)
            FROM billing_ledgertransaction
            WHERE POSTED(id) AND ((idempotency_key LIKE 'usage:%') <> (kind = 'usage')
               OR (idempotency_key LIKE 'refund:%') <> (kind = 'refund')
               OR (idempotency_key LIKE 'payment:%' AND kind <> 'top_up')) ORDER BY id""",
        """SELECT format('usage %s settled %s, its transaction %s is of %s', record.request_id, record.settled_at,
                ledger.id, ledger.created_at)
            FROM billing_usagerecord record
            JOIN billing_ledgertransaction ledger ON ledger.id = record.ledger_transaction_id
            WHERE ledger.kind = 'usage' AND record.settled_at <> ledger.created_at
              AND POSTED(record.ledger_transaction_id) AND POSTED(ledger.id) ORDER BY record.request_id""",
    )


def refunds_are_of_what_was_charged(books: Books) -> Outcome:
    """Each refund names a request of its organization and its debit, in its key as in its input; none exceeds it."""
    breaks: list[str] = []
    rows = 0
    for refunds in _batches(
        books.stream(
            """SELECT ledger.id, ledger.organization_id, ledger.idempotency_key, ledger.input_sha256,
                    -sum(entry.amount_nanos)::bigint
                FROM billing_ledgertransaction ledger
                JOIN billing_ledgerentry entry ON entry.transaction_id = ledger.id
                JOIN billing_ledgeraccount account ON account.id = entry.account_id AND account.kind = 'revenue'
                WHERE ledger.kind = 'refund' AND POSTED(ledger.id) GROUP BY ledger.id ORDER BY ledger.id"""
        ),
    ):
        rows += len(refunds)
        requests = {row[0]: _named_request(row[2]) for row in refunds}
        records = _records([named[0] for named in requests.values() if named])
        for row in refunds:
            breaks += _judge_refund(row, requests[row[0]], records)
        if len(breaks) >= MAX_BREAKS_LISTED:
            break
    outcome = books.judge(
        TRANSACTIONS,
        # All refunds of the requests that a refund of this span names: earlier ones count too.
        """SELECT format('refunds of request %s give back %s of %s nanos', request, given,
                greatest(record.cost_nanos, correction.cost_after_nanos))
            FROM (SELECT split_part(ledger.idempotency_key, ':', 3) AS request, -sum(entry.amount_nanos) AS given
                FROM billing_ledgertransaction ledger
                JOIN billing_ledgerentry entry ON entry.transaction_id = ledger.id
                JOIN billing_ledgeraccount account ON account.id = entry.account_id AND account.kind = 'revenue'
                WHERE ledger.kind = 'refund' AND ledger.idempotency_key ~ '^refund:[0-9]+:[0-9a-f]{32}:'
                GROUP BY 1 HAVING bool_or(POSTED(ledger.id))) refunded
            JOIN billing_usagerecord record ON record.request_id = request::uuid
            LEFT JOIN billing_usagecorrection correction ON correction.request_id = record.request_id
            WHERE given > greatest(record.cost_nanos, correction.cost_after_nanos) ORDER BY request""",
    )
    return Outcome(rows, [*breaks, *outcome.breaks][:MAX_BREAKS_LISTED])


def lots_are_as_they_were_given(books: Books) -> Outcome:
    """A lot was opened full, and has terms only where its transaction gives some."""
    return books.judge(
        "SELECT count(*) FROM billing_creditlot",
        """SELECT format('lot %s of %s nanos was opened with %s', lot.id, lot.amount_nanos,
                coalesce(opening.amount_nanos, 0))
            FROM billing_creditlot lot LEFT JOIN LATERAL (SELECT entry.amount_nanos FROM billing_creditlotentry entry
                WHERE entry.lot_id = lot.id ORDER BY entry.id LIMIT 1) opening ON true
            WHERE opening.amount_nanos IS DISTINCT FROM lot.amount_nanos ORDER BY lot.id""",
        """SELECT format('lot %s never expires, and is said to have expired %s', id, expired_at)
            FROM billing_creditlot WHERE expired_at IS NOT NULL AND expires_at IS NULL ORDER BY id""",
        """SELECT format('lot %s was opened by transaction %s of kind %s, which gives no terms, and has some', lot.id,
                ledger.id, ledger.kind)
            FROM billing_creditlot lot
            JOIN LATERAL (SELECT entry.transaction_id, entry.amount_nanos FROM billing_creditlotentry entry
                WHERE entry.lot_id = lot.id ORDER BY entry.id LIMIT 1) opening
                ON opening.amount_nanos = lot.amount_nanos
            JOIN billing_ledgertransaction ledger ON ledger.id = opening.transaction_id
            WHERE ledger.kind IN ('adjustment', 'refund', 'rerating', 'correction', 'reversal', 'tax')
              AND (lot.expires_at IS NOT NULL OR lot.priority <> 100) ORDER BY lot.id""",
    )


def given_credit_has_its_terms(books: Books) -> Outcome:
    """What was given as credit has the terms that its transaction was posted with."""
    given = "SELECT count(*) FROM billing_ledgertransaction WHERE kind IN ('top_up', 'promotion') AND POSTED(id)"
    return Outcome(books.count(given), list(islice(_wrong_terms(books), MAX_BREAKS_LISTED)))


def redemptions_gave_their_codes_worth(books: Books) -> Outcome:
    return books.judge(
        "SELECT count(*) FROM billing_redemption",
        """SELECT format('code %s was redeemed %s times of %s, and says %s', code.id, counted.times,
                code.max_redemptions, code.redemption_count)
            FROM billing_redemptioncode code LEFT JOIN LATERAL (SELECT count(*) AS times FROM billing_redemption
                WHERE code_id = code.id) counted ON true
            WHERE counted.times <> code.redemption_count OR counted.times > code.max_redemptions ORDER BY code.id""",
        """SELECT format('transaction %s redeemed code %s, and its lot is not what the code gives', ledger.id, code.id)
            FROM billing_redemption redemption
            JOIN billing_redemptioncode code ON code.id = redemption.code_id
            JOIN billing_ledgertransaction ledger ON ledger.id = redemption.ledger_transaction_id
            WHERE ledger.idempotency_key <> format('redemption:%s:%s', code.id, redemption.organization_id)
               OR NOT EXISTS (SELECT 1 FROM billing_creditlotentry entry
                    JOIN billing_creditlot lot ON lot.id = entry.lot_id
                    WHERE entry.transaction_id = ledger.id AND entry.amount_nanos = code.amount_nanos
                      AND lot.amount_nanos = code.amount_nanos AND lot.kind = 'promotional'
                      AND lot.priority = code.lot_priority
                      AND lot.expires_at IS NOT DISTINCT FROM code.lot_expires_at)
            ORDER BY ledger.id""",
        """SELECT format('transaction %s is %s, and no redemption names it', id, idempotency_key)
            FROM billing_ledgertransaction ledger
            WHERE idempotency_key LIKE 'redemption:%'
              AND NOT EXISTS (SELECT 1 FROM billing_redemption WHERE ledger_transaction_id = ledger.id) ORDER BY id""",
    )


def _batches(rows: Iterator[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    while batch := list(islice(rows, RECORDS_PER_QUERY)):
        yield batch


def _named_request(key: str) -> tuple[UUID, int] | None:
    """Return the request and the charge that the key of a refund names."""
    try:
        _, charge, hexadecimal, _ = key.split(":", 3)
        return UUID(hexadecimal), int(charge)
    except ValueError:
        return None


def _records(requests: Sequence[UUID]) -> dict[UUID, tuple[int, int]]:
    """Return the organization and the debit of each of these requests that was billed."""
    rows = fetch_all(
        """SELECT request_id, record.organization_id,
                coalesce(record.ledger_transaction_id, correction.ledger_transaction_id)
            FROM billing_usagerecord record LEFT JOIN billing_usagecorrection correction USING (request_id)
            WHERE request_id = ANY(%s)""",
        [list(requests)],
    )
    return {row[0]: (row[1], row[2]) for row in rows}


def _judge_refund(
    row: tuple[Any, ...], named: tuple[UUID, int] | None, records: Mapping[UUID, tuple[int, int]]
) -> list[str]:
    """Return what is wrong with one refund."""
    transaction_id, organization_id, key, digest, nanos = row
    label = f"refund {transaction_id} of organization {organization_id}"
    if named is None:
        return [f"{label} names no request: {key}"]
    request_id, charge_id = named
    if records.get(request_id) != (organization_id, charge_id):
        return [f"{label} is of request {request_id}, debited by transaction {charge_id}: there is no such record"]
    kind = LedgerTransaction.Kind.REFUND
    for amount in (None, nanos):
        inputs = {"request_id": request_id.hex, "amount_nanos": amount}
        if input_digest(kind, organization_id, inputs) == bytes(digest):
            return []
    return [f"{label} was posted for another input than {say_usd(nanos)} of request {request_id}"]


def _wrong_terms(books: Books) -> Iterator[str]:
    """Yield a line for each transaction of given credit whose lot is missing or has other terms than it was given."""
    for transaction_id, kind, organization_id, digest, lot_id, provider, *terms in books.stream(
        """SELECT ledger.id, ledger.kind, ledger.organization_id, ledger.input_sha256, lot.id,
                coalesce((SELECT account.payment_provider FROM billing_ledgerentry entry
                    JOIN billing_ledgeraccount account ON account.id = entry.account_id
                    WHERE entry.transaction_id = ledger.id AND account.kind = 'cash' LIMIT 1),
                    (SELECT top_up.provider FROM billing_topup top_up WHERE top_up.ledger_transaction_id = ledger.id),
                    ''),
                lot.amount_nanos, lot.kind, lot.expires_at, lot.priority
            FROM billing_ledgertransaction ledger
            LEFT JOIN LATERAL (SELECT entry.lot_id FROM billing_creditlotentry entry
                WHERE entry.transaction_id = ledger.id AND entry.amount_nanos > 0
                ORDER BY entry.id LIMIT 1) opening ON true
            LEFT JOIN billing_creditlot lot ON lot.id = opening.lot_id
            WHERE ledger.kind IN ('top_up', 'promotion') AND ledger.idempotency_key NOT LIKE 'redemption:%'
              AND POSTED(ledger.id)
            ORDER BY ledger.id"""
    ):
        if lot_id is None:
            yield f"transaction {transaction_id} of kind {kind} opened no lot"
            continue
        amount_nanos, lot_kind, expires_at, priority = terms
        inputs = lot_inputs(amount_nanos, lot_kind, expires_at=expires_at, priority=priority, payment_provider=provider)
        if input_digest(LedgerTransaction.Kind(kind), organization_id, inputs) != bytes(digest):
            yield (
                f"lot {lot_id} ({say_usd(amount_nanos)}, {lot_kind}, expires {expires_at}, priority {priority}) is not"
                f" what transaction {transaction_id} gave"
            )


TRANSACTION_CHECKS = (
    Check("I1", "transactions have the entries that they were written with", transactions_are_whole),
    Check("I2", "transactions touch accounts of their kind", transactions_touch_accounts_of_their_kind),
    Check("I4", "debits name the requests that they are of", debits_name_their_requests),
    Check("I9", "refunds are of what was charged, and never more", refunds_are_of_what_was_charged),
    Check("I10", "lots are as they were given", lots_are_as_they_were_given, is_whole=True),
    Check("I10", "given credit has the terms of its transaction", given_credit_has_its_terms),
    Check(
        "I10",
        "redeemed codes gave what they were worth, as often as they say",
        redemptions_gave_their_codes_worth,
        True,
    ),
)
