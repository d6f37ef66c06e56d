"""Months of an organization as ranges of its transactions: closed ones as they were closed, others as they stand."""

from dataclasses import replace

from accounts.models import Organization
from billing.documents.periods import Month, month_of, months_between, parse_month
from billing.documents.posted import PostedRange, find_range
from billing.models import ClosedMonth, LedgerTransaction


def range_of(closed: ClosedMonth) -> PostedRange:
    """Return the transactions of a closed month."""
    month = parse_month(closed.month)
    return PostedRange(
        closed.organization_id, closed.after_transaction_id, closed.last_transaction_id, month.begins, month.ends
    )


def find_month(organization: Organization, month: Month) -> tuple[PostedRange, bool]:
    """Return the transactions of a month, and whether it is closed. One that is not begins where closed ones end."""
    closed = ClosedMonth.objects.filter(organization=organization, month=str(month)).first()
    if closed is not None:
        return range_of(closed), True
    posted = find_range(organization, month.begins, month.ends)
    earlier = ClosedMonth.objects.filter(organization=organization, month__lt=str(month)).order_by("-month").first()
    if earlier is not None and month == parse_month(earlier.month).next:
        posted = replace(posted, after_id=earlier.last_transaction_id)
    return replace(posted, last_id=max(posted.after_id, posted.last_id)), False


def months_of(organization: Organization, *, last: Month) -> list[Month]:
    """Return the months from the organization's first posting up to `last`, newest first."""
    first = LedgerTransaction.objects.filter(organization=organization).order_by("id").first()
    if first is None:
        return []
    return list(months_between(month_of(first.created_at), last))[::-1]
