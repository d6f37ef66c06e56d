"""Credit lots: within their bounds, equal to their accounts, never drawn for what was admitted after their expiry.

A lot is a chain like an account: each entry says what is left after it.
"""

from billing.checks.books import Books, Outcome
from billing.checks.invariant import Check

LOTS = "SELECT count(*) FROM billing_creditlot"
LOT_ENTRIES = "SELECT count(*) FROM billing_creditlotentry WHERE POSTED(transaction_id)"


def lots_have_what_their_entries_left(books: Books) -> Outcome:
    return books.judge(
        LOTS,
        """SELECT format('lot %s: %s left of %s nanos', id, remaining_nanos, amount_nanos) FROM billing_creditlot
            WHERE remaining_nanos NOT BETWEEN 0 AND amount_nanos ORDER BY id""",
        """SELECT format('lot %s: %s nanos left, its entries sum to %s',
                lot.id, lot.remaining_nanos, coalesce(last.remaining_after_nanos, 0))
            FROM billing_creditlot lot
            LEFT JOIN LATERAL (SELECT remaining_after_nanos FROM billing_creditlotentry entry
                WHERE entry.lot_id = lot.id ORDER BY id DESC LIMIT 1) last ON true
            WHERE lot.remaining_nanos <> coalesce(last.remaining_after_nanos, 0) ORDER BY lot.id""",
    )


def lots_stay_in_bounds(books: Books) -> Outcome:
    return books.judge(
        LOT_ENTRIES,
        """SELECT format('lot %s after entry %s: recorded %s, its entries sum to %s of %s nanos',
                lot_id, id, remaining_after_nanos, total, amount) FROM (
                SELECT entry.id, entry.lot_id, entry.remaining_after_nanos, lot.amount_nanos AS amount,
                    entry.amount_nanos + coalesce(entry.left_before, CASE WHEN entry.left_before IS NULL THEN
                        (SELECT earlier.remaining_after_nanos FROM billing_creditlotentry earlier
                            WHERE earlier.lot_id = entry.lot_id AND earlier.id < entry.id
                            ORDER BY earlier.id DESC LIMIT 1) END, 0) AS total
                FROM (SELECT id, lot_id, amount_nanos, remaining_after_nanos,
                        lag(remaining_after_nanos) OVER (PARTITION BY lot_id ORDER BY id) AS left_before
                    FROM billing_creditlotentry WHERE POSTED(transaction_id)) entry
                JOIN billing_creditlot lot ON lot.id = entry.lot_id) running
            WHERE remaining_after_nanos <> total OR total NOT BETWEEN 0 AND amount ORDER BY lot_id, id""",
    )


def lots_sum_to_accounts(books: Books) -> Outcome:
    return books.judge(
        LOTS,
        """SELECT format('organization %s: %s account %s nanos, lots %s', coalesce(account.organization_id,
                lots.organization_id), coalesce(account.kind, lots.kind), account.balance_nanos, lots.remaining)
            FROM (SELECT organization_id, kind, balance_nanos FROM billing_ledgeraccount
                WHERE kind IN ('prepaid', 'promotional')) account
            FULL JOIN (SELECT organization_id, CASE kind WHEN 'paid' THEN 'prepaid' ELSE kind END AS kind,
                    sum(remaining_nanos) AS remaining FROM billing_creditlot GROUP BY 1, 2) lots
                ON lots.organization_id = account.organization_id AND lots.kind = account.kind
            WHERE coalesce(account.balance_nanos, 0) <> coalesce(lots.remaining, 0) ORDER BY 1""",
    )


def lots_move_with_accounts(books: Books) -> Outcome:
    return books.judge(
        LOT_ENTRIES,
        """SELECT format('transaction %s moves %s nanos of %s lots and %s of the account', transaction_id,
                coalesce(lots.nanos, 0), kind, coalesce(entries.nanos, 0))
            FROM (SELECT entry.transaction_id, CASE lot.kind WHEN 'paid' THEN 'prepaid' ELSE lot.kind END AS kind,
                    sum(entry.amount_nanos) AS nanos
                FROM billing_creditlotentry entry JOIN billing_creditlot lot ON lot.id = entry.lot_id
                WHERE POSTED(entry.transaction_id) GROUP BY 1, 2) lots
            FULL JOIN (SELECT entry.transaction_id, account.kind, sum(entry.amount_nanos) AS nanos
                FROM billing_ledgerentry entry JOIN billing_ledgeraccount account ON account.id = entry.account_id
                WHERE account.kind IN ('prepaid', 'promotional') AND POSTED(entry.transaction_id)
                GROUP BY 1, 2) entries USING (transaction_id, kind)
            WHERE coalesce(lots.nanos, 0) <> coalesce(entries.nanos, 0) ORDER BY transaction_id""",
    )


def expired_lots_are_not_drawn(books: Books) -> Outcome:
    """A lot pays for requests that were admitted before its expiry, also when they settle later; for nothing else."""
    return books.judge(
        LOT_ENTRIES,
        """SELECT format('transaction %s drew %s nanos from lot %s, which expired %s, for nothing admitted before',
                ledger.id, -entry.amount_nanos, lot.id, lot.expires_at)
            FROM billing_creditlotentry entry
            JOIN billing_creditlot lot ON lot.id = entry.lot_id
            JOIN billing_ledgertransaction ledger ON ledger.id = entry.transaction_id
            WHERE entry.amount_nanos < 0 AND lot.expires_at IS NOT NULL AND ledger.kind <> 'expiry'
              AND POSTED(entry.transaction_id) AND POSTED(ledger.id) AND ledger.created_at >= lot.expires_at
              AND NOT EXISTS (SELECT 1 FROM billing_usagerecord record
                  WHERE record.ledger_transaction_id = ledger.id AND record.admitted_at < lot.expires_at)
              AND NOT EXISTS (SELECT 1 FROM billing_usagecorrection correction
                  JOIN billing_usagerecord record USING (request_id)
                  WHERE correction.ledger_transaction_id = ledger.id AND record.admitted_at < lot.expires_at)
            ORDER BY ledger.id""",
        """SELECT format('transaction %s let lot %s expire before its time', ledger.id, lot.id)
            FROM billing_creditlotentry entry
            JOIN billing_creditlot lot ON lot.id = entry.lot_id
            JOIN billing_ledgertransaction ledger ON ledger.id = entry.transaction_id
            WHERE ledger.kind = 'expiry' AND (lot.expires_at IS NULL OR lot.expired_at IS NULL)
              AND POSTED(entry.transaction_id) AND POSTED(ledger.id) ORDER BY ledger.id""",
    )


LOT_CHECKS = (
    Check("I10", "lots have what their entries left", lots_have_what_their_entries_left, is_whole=True),
    Check("I10", "lots stay between zero and their amount", lots_stay_in_bounds),
    Check("I10", "lots sum to their accounts", lots_sum_to_accounts, is_whole=True),
    Check("I10", "every transaction moves lots and accounts alike", lots_move_with_accounts),
    Check("I10", "expired lots are not drawn", expired_lots_are_not_drawn),
)
