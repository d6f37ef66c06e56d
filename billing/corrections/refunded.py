"""What refunds gave back of requests. Read by everything that corrects a cost, so that nothing is given back twice."""

from collections.abc import Sequence
from uuid import UUID

from billing.bulk_rows import fetch_all


def refunded_by_request(request_ids: Sequence[UUID]) -> dict[UUID, int]:
    """Return the nano-dollars that refunds gave back of these requests; those without one are missing."""
    rows = fetch_all(
        """SELECT split_part(refund.idempotency_key, ':', 3)::uuid, (-sum(entry.amount_nanos))::bigint
            FROM billing_usagerecord record
            LEFT JOIN billing_usagecorrection correction USING (request_id)
            JOIN billing_ledgertransaction refund ON refund.organization_id = record.organization_id
                AND starts_with(refund.idempotency_key, concat('refund:', coalesce(record.ledger_transaction_id,
                    correction.ledger_transaction_id), ':', replace(record.request_id::text, '-', ''), ':'))
            JOIN billing_ledgerentry entry ON entry.transaction_id = refund.id
            JOIN billing_ledgeraccount account ON account.id = entry.account_id AND account.kind = 'revenue'
            WHERE request_id = ANY(%s) GROUP BY 1""",
        [list(request_ids)],
    )
    return dict(rows)
