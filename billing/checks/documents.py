"""Documents: numbered without gaps, adding up, and saying what the ledger says of their months."""

from billing.checks.books import Books, Outcome
from billing.checks.invariant import Check

DOCUMENTS = "SELECT count(*) FROM billing_document"
MONTHS = "SELECT count(*) FROM billing_closedmonth closed WHERE POSTED(closed.last_transaction_id)"


def numbers_run_without_gaps(books: Books) -> Outcome:
    return books.judge(
        DOCUMENTS,
        """SELECT format('%s %s stands in place %s', kind, number, place) FROM (
                SELECT kind, number, row_number() OVER (PARTITION BY kind ORDER BY number) AS place
                FROM billing_document) numbered
            WHERE number <> place ORDER BY kind, number""",
        """SELECT format('series %s has come to %s, and has %s documents', series.name, series.last_number,
                count(document.id))
            FROM billing_documentseries series LEFT JOIN billing_document document ON document.kind = series.name
            GROUP BY series.name, series.last_number HAVING count(document.id) <> series.last_number ORDER BY 1""",
        """SELECT format('%s %s was issued %s, before the number below it', kind, number, issued_at) FROM (
                SELECT kind, number, issued_at, lag(issued_at) OVER (PARTITION BY kind ORDER BY number) AS before
                FROM billing_document) numbered
            WHERE issued_at < before ORDER BY kind, number""",
    )


def documents_add_up(books: Books) -> Outcome:
    """Lines are the net; the net is rounded half up to cents; tax is computed once from it; net and tax are gross."""
    return books.judge(
        DOCUMENTS,
        """SELECT format('%s %s: net %s nanos, lines %s', kind, number, net_nanos, total) FROM (
                SELECT document.*, (SELECT coalesce(sum(amount_nanos), 0) FROM billing_documentline line
                    WHERE line.document_id = document.id) AS total FROM billing_document document) summed
            WHERE net_nanos <> total OR net_nanos <> charges_nanos - promotional_nanos ORDER BY kind, number""",
        """SELECT format('%s %s: %s nanos are not %s cents', kind, number, net_nanos, net_cents)
            FROM billing_document WHERE net_cents <> (net_nanos + 5000000) / 10000000 ORDER BY kind, number""",
        """SELECT format('%s %s: %s cents at %s ppm and %s of tax make %s', kind, number, net_cents, tax_rate_ppm,
                tax_cents, gross_cents)
            FROM billing_document
            WHERE tax_cents <> (net_cents * tax_rate_ppm + 500000) / 1000000 OR gross_cents <> net_cents + tax_cents
            ORDER BY kind, number""",
    )


def closed_months_follow_each_other(books: Books) -> Outcome:
    return books.judge(
        "SELECT count(*) FROM billing_closedmonth",
        """SELECT format('organization %s, %s: begins after transaction %s with %s nanos, the month before ended with'
                ' %s and %s', organization_id, month, after_transaction_id, opening_nanos, last_before, closing_before)
            FROM (SELECT closed.*, lag(last_transaction_id, 1, 0::bigint) OVER months AS last_before,
                    lag(closing_nanos, 1, 0::bigint) OVER months AS closing_before
                FROM billing_closedmonth closed WINDOW months AS (PARTITION BY organization_id ORDER BY month)) followed
            WHERE after_transaction_id <> last_before OR opening_nanos <> closing_before
            ORDER BY organization_id, month""",
    )


def closed_months_are_the_ledger(books: Books) -> Outcome:
    """What the documents of a month charge is what its transactions added to revenue, less promotional credit."""
    return books.judge(
        MONTHS,
        """SELECT format('organization %s, %s: documents come to %s nanos, the ledger to %s', organization_id, month,
                documented, posted) FROM (
                SELECT closed.*,
                    (SELECT coalesce(sum(CASE kind WHEN 'credit_note' THEN -net_nanos ELSE net_nanos END), 0)
                        FROM billing_document WHERE closed_month_id = closed.id) AS documented,
                    (SELECT coalesce(sum(entry.amount_nanos), 0)
                        FROM billing_ledgertransaction ledger
                        JOIN billing_ledgerentry entry ON entry.transaction_id = ledger.id
                        JOIN billing_ledgeraccount account ON account.id = entry.account_id
                        WHERE ledger.organization_id = closed.organization_id
                          AND ledger.id > closed.after_transaction_id AND ledger.id <= closed.last_transaction_id
                          AND account.kind IN ('revenue', 'promotional', 'promotion_expense')) AS posted
                FROM billing_closedmonth closed
                WHERE finished_at IS NOT NULL AND POSTED(closed.last_transaction_id)) compared
            WHERE documented <> posted ORDER BY organization_id, month""",
        """SELECT format('organization %s, %s: closes with %s nanos, its entries say %s', organization_id, month,
                closing_nanos, total) FROM (
                SELECT closed.*, (SELECT coalesce(sum(entry.amount_nanos), 0)
                    FROM billing_ledgertransaction ledger
                    JOIN billing_ledgerentry entry ON entry.transaction_id = ledger.id
                    JOIN billing_ledgeraccount account ON account.id = entry.account_id
                    WHERE ledger.organization_id = closed.organization_id
                      AND account.organization_id = closed.organization_id
                      AND ledger.id > closed.after_transaction_id AND ledger.id <= closed.last_transaction_id) AS total
                FROM billing_closedmonth closed WHERE POSTED(closed.last_transaction_id)) summed
            WHERE closing_nanos <> opening_nanos + total ORDER BY organization_id, month""",
    )


def tax_is_posted_once(books: Books) -> Outcome:
    return books.judge(
        "SELECT count(*) FROM billing_ledgertransaction WHERE kind = 'tax'",
        """SELECT format('%s %s bears %s cents of tax, its transaction posts %s nanos', kind, number, tax_cents, posted)
            FROM (SELECT document.*, (SELECT coalesce(sum(entry.amount_nanos), 0)
                    FROM billing_ledgertransaction ledger
                    JOIN billing_ledgerentry entry ON entry.transaction_id = ledger.id
                    JOIN billing_ledgeraccount account ON account.id = entry.account_id AND account.kind = 'tax_owed'
                    WHERE ledger.id = document.tax_transaction_id AND ledger.kind = 'tax'
                      AND ledger.organization_id = document.organization_id
                      AND ledger.idempotency_key = 'tax:' || document.id) AS posted
                FROM billing_document document) taxed
            WHERE posted <> CASE kind WHEN 'credit_note' THEN -tax_cents ELSE tax_cents END * 10000000::bigint
            ORDER BY kind, number""",
        """SELECT format('transaction %s posts tax, and no document names it', id) FROM billing_ledgertransaction ledger
            WHERE kind = 'tax'
              AND NOT EXISTS (SELECT 1 FROM billing_document WHERE tax_transaction_id = ledger.id) ORDER BY id""",
    )


def receipts_are_of_payments(books: Books) -> Outcome:
    return books.judge(
        "SELECT count(*) FROM billing_document WHERE kind = 'payment_receipt'",
        """SELECT format('receipt %s says %s nanos, its payment %s', number, net_nanos, paid) FROM (
                SELECT document.*, (SELECT coalesce(-sum(entry.amount_nanos), 0)
                    FROM billing_ledgertransaction ledger
                    JOIN billing_ledgerentry entry ON entry.transaction_id = ledger.id
                    JOIN billing_ledgeraccount account ON account.id = entry.account_id AND account.kind = 'cash'
                    WHERE ledger.id = document.payment_id AND ledger.kind = 'top_up'
                      AND ledger.organization_id = document.organization_id) AS paid
                FROM billing_document document WHERE kind = 'payment_receipt') compared
            WHERE net_nanos <> paid ORDER BY number""",
    )


DOCUMENT_CHECKS = (
    Check("I12", "documents are numbered without gaps, in the order of their issue", numbers_run_without_gaps, True),
    Check("I12", "lines, net, tax and gross of every document add up", documents_add_up, is_whole=True),
    Check("I12", "closed months follow each other", closed_months_follow_each_other, is_whole=True),
    Check("I12", "the documents of closed months are the ledger", closed_months_are_the_ledger),
    Check("I12", "the tax of every document is posted once", tax_is_posted_once, is_whole=True),
    Check("I12", "receipts are of payments", receipts_are_of_payments, is_whole=True),
)
