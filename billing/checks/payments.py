"""I11: payments and the ledger say the same. What stays unattributed, or is paid and not credited, is a break."""

from billing.checks.books import Books, Outcome
from billing.checks.invariant import Check

ORDERS = "SELECT count(*) FROM billing_topup"


def paid_orders_are_credited_once(books: Books) -> Outcome:
    """A paid order has one credit, of its amount, to its organization; every credit by payment has an order."""
    return books.judge(
        ORDERS,
        """SELECT format('top-up %s is %s and has the credit %s of organization %s, of %s nanos; %s were ordered by %s',
                top_up.id, top_up.state, ledger.id, ledger.organization_id, credit.nanos, top_up.amount_nanos,
                top_up.organization_id)
            FROM billing_topup top_up
            LEFT JOIN billing_ledgertransaction ledger ON ledger.id = top_up.ledger_transaction_id
            LEFT JOIN LATERAL (SELECT sum(entry.amount_nanos) AS nanos FROM billing_ledgerentry entry
                JOIN billing_ledgeraccount account ON account.id = entry.account_id
                WHERE entry.transaction_id = ledger.id AND account.organization_id = top_up.organization_id) credit
                ON true
            WHERE (top_up.state IN ('paid', 'refunded')) <> (ledger.id IS NOT NULL)
               OR (ledger.id IS NOT NULL AND (ledger.organization_id <> top_up.organization_id
                   OR credit.nanos IS DISTINCT FROM top_up.amount_nanos
                   OR ledger.idempotency_key <>
                       format('payment:%s:%s', top_up.provider, replace(top_up.reference::text, '-', ''))))
            ORDER BY top_up.id""",
        """SELECT format('top-up %s was paid %s nanos of %s, and %s are booked as cash of %s', top_up.id,
                top_up.paid_nanos, top_up.amount_nanos, coalesce(cash.nanos, 0), top_up.provider)
            FROM billing_topup top_up
            LEFT JOIN LATERAL (SELECT -sum(entry.amount_nanos) AS nanos FROM billing_ledgerentry entry
                JOIN billing_ledgeraccount account ON account.id = entry.account_id
                WHERE entry.transaction_id = top_up.ledger_transaction_id AND account.kind = 'cash'
                  AND account.payment_provider = top_up.provider) cash ON true
            WHERE top_up.ledger_transaction_id IS NOT NULL
              AND coalesce(cash.nanos, 0) <> least(top_up.paid_nanos, top_up.amount_nanos) ORDER BY top_up.id""",
        # Payments that were booked before there were orders name no reference of one.
        """SELECT format('transaction %s is the credit %s, and no order has it', ledger.id, ledger.idempotency_key)
            FROM billing_ledgertransaction ledger
            WHERE ledger.idempotency_key ~ '^payment:[^:]+:[0-9a-f]{32}$'
              AND NOT EXISTS (SELECT 1 FROM billing_topup WHERE ledger_transaction_id = ledger.id)
            ORDER BY ledger.id""",
    )


def reversals_are_of_their_orders(books: Books) -> Outcome:
    """What was taken back of an order is what its reversals posted, never more than was credited."""
    return books.judge(
        "SELECT count(*) FROM billing_paymentreversal",
        """SELECT format('top-up %s of %s nanos: %s taken back, its reversals sum to %s', top_up.id,
                top_up.amount_nanos, top_up.reversed_nanos, coalesce(sum(reversal.amount_nanos), 0))
            FROM billing_topup top_up LEFT JOIN billing_paymentreversal reversal ON reversal.top_up_id = top_up.id
            GROUP BY top_up.id
            HAVING coalesce(sum(reversal.amount_nanos), 0) <> top_up.reversed_nanos
                OR coalesce(sum(reversal.amount_nanos), 0) NOT BETWEEN 0 AND top_up.amount_nanos
                OR coalesce(sum(reversal.cash_nanos), 0) > coalesce(top_up.paid_nanos, 0)
                OR (top_up.state = 'refunded') <> (top_up.reversed_nanos = top_up.amount_nanos)
            ORDER BY top_up.id""",
        """SELECT format('reversal %s of top-up %s is of %s nanos, and its transaction %s posts %s', reversal.number,
                reversal.top_up_id, reversal.amount_nanos, ledger.id, coalesce(posted.nanos, 0))
            FROM billing_paymentreversal reversal
            JOIN billing_topup top_up ON top_up.id = reversal.top_up_id
            JOIN billing_ledgertransaction ledger ON ledger.id = reversal.ledger_transaction_id
            LEFT JOIN LATERAL (SELECT -sum(entry.amount_nanos) AS nanos FROM billing_ledgerentry entry
                JOIN billing_ledgeraccount account ON account.id = entry.account_id
                WHERE entry.transaction_id = ledger.id AND account.organization_id = top_up.organization_id) posted
                ON true
            WHERE coalesce(posted.nanos, 0) <> reversal.amount_nanos OR ledger.kind <> 'reversal'
               OR ledger.idempotency_key <> format('reversal:%s:%s', reversal.top_up_id, reversal.number)
            ORDER BY reversal.id""",
        """SELECT format('transaction %s is a reversal, and no order has it', id) FROM billing_ledgertransaction ledger
            WHERE kind = 'reversal' AND NOT EXISTS
                (SELECT 1 FROM billing_paymentreversal WHERE ledger_transaction_id = ledger.id) ORDER BY id""",
    )


def payments_have_no_open_breaks(books: Books) -> Outcome:
    return books.judge(
        "SELECT count(*) FROM billing_paymentbreak",
        """SELECT format('%s at %s, %s: %s', kind, provider, reference, detail) FROM billing_paymentbreak
            WHERE resolved_at IS NULL ORDER BY id""",
    )


PAYMENT_CHECKS = (
    Check(
        "I11", "paid orders have one credit of their amount, and credits an order", paid_orders_are_credited_once, True
    ),
    Check(
        "I11", "reversals are of their orders, and never more than was credited", reversals_are_of_their_orders, True
    ),
    Check("I11", "payments have no open breaks", payments_have_no_open_breaks, is_whole=True),
)
