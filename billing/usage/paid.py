"""Which requests a ledger transaction paid for."""

from datetime import timedelta

from billing.models import LedgerTransaction, UsageRecord
from billing.request_id import first_id_at

# Nearly all are settled within seconds, and what a gateway's spool sends again within days.
USUALLY_SETTLED_WITHIN = timedelta(days=8)
CLOCKS_RUN_AHEAD = timedelta(days=1)


def records_paid_by(transaction: LedgerTransaction, *, nanos: int, limit: int) -> list[UsageRecord]:
    """Return the records that a debit of `nanos` is of, newest first, at most `limit`.

    They are looked for where they nearly always are, and in all months only when something is missing there.
    """
    if transaction.kind != LedgerTransaction.Kind.USAGE or transaction.organization_id is None:
        return []
    records = UsageRecord.objects.filter(
        organization_id=transaction.organization_id, ledger_transaction_id=transaction.pk
    ).order_by("-request_id")
    posted_at = transaction.created_at
    found = list(
        records.filter(
            request_id__gte=first_id_at(posted_at - USUALLY_SETTLED_WITHIN),
            request_id__lt=first_id_at(posted_at + CLOCKS_RUN_AHEAD),
        )[:limit]
    )
    if len(found) < limit and sum(record.cost_nanos for record in found) != nanos:
        found = list(records[:limit])
    return found
