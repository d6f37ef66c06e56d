"""Which ledger transactions a document is about: a range of an organization's transaction ids.

Ids of an organization's transactions rise with time, because they are given under its lock (billing.ledger.book). So a
range of ids has sharp ends that no clock can blur, and two ranges that touch leave nothing out and take nothing twice.
"""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from accounts.models import Organization
from billing.bulk_rows import fetch_all
from billing.documents.periods import Month
from billing.models import LedgerTransaction
from billing.request_id import first_id_at
from billing.usage.paid import CLOCKS_RUN_AHEAD, USUALLY_SETTLED_WITHIN

# Where usage of a period is looked for first, by the time of its request ids. It is all there unless something was
# settled very late; whether it is, the ledger says, and then everything is looked at.
NO_LOWER_BOUND, NO_UPPER_BOUND = UUID(int=0), UUID(int=2**128 - 1)


@dataclass(frozen=True, slots=True)
class PostedRange:
    """The transactions with after_id < id <= last_id of one organization, posted in [begins, ends)."""

    organization_id: int
    after_id: int
    last_id: int
    begins: datetime
    ends: datetime

    @property
    def parameters(self) -> dict[str, object]:
        return {"organization_id": self.organization_id, "after_id": self.after_id, "last_id": self.last_id}


@dataclass(frozen=True, slots=True)
class RequestBounds:
    """Between which request ids all usage records of a range lie: what lets Postgres read few partitions."""

    first: UUID
    before: UUID

    @property
    def parameters(self) -> dict[str, object]:
        return {"first_request": self.first, "before_request": self.before}


# The usage records that the transactions of a range have debited; the two share an organization, and its ids rise.
# `+ 0` keeps Postgres from the index of transactions: in a range of them are those of all organizations.
RECORDS_OF_RANGE = """record.organization_id = %(organization_id)s
    AND record.ledger_transaction_id + 0 > %(after_id)s AND record.ledger_transaction_id + 0 <= %(last_id)s
    AND record.request_id >= %(first_request)s AND record.request_id < %(before_request)s"""


def find_range(organization: Organization, begins: datetime, ends: datetime) -> PostedRange:
    """Return what was posted to an organization in [begins, ends), by the ledger's own clock."""
    return PostedRange(
        organization.pk, last_id_before(organization, begins), last_id_before(organization, ends), begins, ends
    )


def last_id_before(organization: Organization, moment: datetime) -> int:
    """Return the id of the last transaction that was posted before a moment; 0 when there is none."""
    earlier = LedgerTransaction.objects.filter(organization=organization, created_at__lt=moment)
    return earlier.order_by("-id").values_list("pk", flat=True).first() or 0


def balance_after(organization_id: int, transaction_id: int) -> int:
    """Return the posted balance after the transaction with this id, in nano-dollars, from the entries of that time."""
    rows = fetch_all(
        """SELECT coalesce(sum(last.balance_after_nanos), 0)::bigint
            FROM billing_ledgeraccount account CROSS JOIN LATERAL (
                SELECT balance_after_nanos FROM billing_ledgerentry
                WHERE account_id = account.id AND transaction_id <= %s ORDER BY seq DESC LIMIT 1) last
            WHERE account.organization_id = %s""",
        [transaction_id, organization_id],
    )
    return int(rows[0][0])


def usage_bounds(posted: PostedRange) -> RequestBounds:
    """Return bounds that hold all usage records of the range, close ones where the ledger says that these suffice."""
    close = RequestBounds(
        first_id_at(posted.begins - USUALLY_SETTLED_WITHIN), first_id_at(posted.ends + CLOCKS_RUN_AHEAD)
    )
    found = fetch_all(
        f"SELECT coalesce(sum(record.cost_nanos), 0)::bigint FROM billing_usagerecord record WHERE {RECORDS_OF_RANGE}",  # noqa: S608
        {**posted.parameters, **close.parameters},
    )
    if found[0][0] == debited_nanos(posted):
        return close
    return RequestBounds(NO_LOWER_BOUND, NO_UPPER_BOUND)


def debited_nanos(posted: PostedRange) -> int:
    """Return what the debits of usage in the range took, in nano-dollars, at or above zero, by their own entries."""
    rows = fetch_all(
        """SELECT coalesce(-sum(entry.amount_nanos), 0)::bigint
            FROM billing_ledgertransaction ledger
            JOIN billing_ledgerentry entry ON entry.transaction_id = ledger.id
            JOIN billing_ledgeraccount account ON account.id = entry.account_id
            WHERE ledger.organization_id = %(organization_id)s AND ledger.id > %(after_id)s AND ledger.id <= %(last_id)s
              AND ledger.kind = 'usage' AND account.organization_id = %(organization_id)s""",
        posted.parameters,
    )
    return int(rows[0][0])


def month_range(organization: Organization, month: Month) -> PostedRange:
    """Return what was posted to an organization in a month that is not closed, or before months were closed."""
    return find_range(organization, month.begins, month.ends)
