"""What refunds gave back of requests. Read by everything that corrects a cost, so that nothing is given back twice."""

from collections.abc import Sequence
from uuid import UUID

from billing.bulk_rows import fetch_all

# Each request's refunds are looked up by the beginning of their keys, in the order of bytes, which has an index: an
# organization may have millions of transactions. OFFSET keeps Postgres from joining all of them. ";" follows ":".
REFUNDED = """
    SELECT request_id, (-sum(entry.amount_nanos))::bigint
    FROM billing_usagerecord record
    LEFT JOIN billing_usagecorrection correction USING (request_id)
    CROSS JOIN LATERAL (SELECT concat('refund:', coalesce(record.ledger_transaction_id,
        correction.ledger_transaction_id), ':', replace(record.request_id::text, '-', '')) AS beginning) named
    CROSS JOIN LATERAL (SELECT id, organization_id FROM billing_ledgertransaction
        WHERE idempotency_key ~>=~ (named.beginning || ':') AND idempotency_key ~<~ (named.beginning || ';')
        OFFSET 0) refund
    JOIN billing_ledgerentry entry ON entry.transaction_id = refund.id
    JOIN billing_ledgeraccount account ON account.id = entry.account_id AND account.kind = 'revenue'
    WHERE request_id = ANY(%s) AND refund.organization_id = record.organization_id GROUP BY 1"""


def refunded_by_request(request_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the nano-dollars that refunds gave back of these requests; those without one are missing."""
    return dict(fetch_all(REFUNDED, [list(request_ids)]))
