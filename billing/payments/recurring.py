"""Recurring credit: an amount each month, as a promotional lot that ends with the month. Months are UTC, half-open.

A month that was missed is not given afterwards; one that has begun is given whole, whenever the task comes. Nothing is
given to an organization that is closed. What was
admitted before the month ended is paid by its lot, however late it settles.
"""

import logging
from datetime import UTC, date, datetime

from django.utils import timezone

from accounts.models import Organization
from billing.credit.top_ups import MAX_TOP_UP_NANOS, InvalidTopUpError, grant_credit
from billing.days import ORDINAL_OF_EPOCH, date_of, days_in_month
from billing.ledger.book import DEFAULT_PRIORITY, LedgerError
from billing.models import CreditLot, LedgerTransaction, RecurringCredit
from billing.money import format_usd
from billing.watching import watched

ACTOR = "recurring credit"
PRIORITY = DEFAULT_PRIORITY - 10  # It ends soonest of all, so it burns first.
MAX_GIVEN_PER_ROUND = 1_000

logger = logging.getLogger(__name__)


class InvalidRecurringCreditError(ValueError):
    """It cannot be given like this; the text says why."""


def include_monthly(
    organization: Organization,
    *,
    amount_nanos: int,
    first_month: date,
    reason: str,
    created_by: str,
    last_month: date | None = None,
) -> RecurringCredit:
    """Let an organization have an amount each month, from the first to the last. Raises InvalidRecurringCreditError."""
    if not 0 < amount_nanos <= MAX_TOP_UP_NANOS:
        raise InvalidRecurringCreditError(f"The amount is above 0 and at most {format_usd(MAX_TOP_UP_NANOS)} USD.")
    if not reason.strip():
        raise InvalidRecurringCreditError("It says what it is for.")
    first, last = first_month.replace(day=1), last_month.replace(day=1) if last_month else None
    if last is not None and last < first:
        raise InvalidRecurringCreditError("It would end before it begins.")
    return RecurringCredit.objects.create(
        organization=organization,
        amount_nanos=amount_nanos,
        first_month=first,
        last_month=last,
        reason=reason.strip()[:150],
        created_by=created_by,
    )


def end_monthly(recurring: RecurringCredit, *, now: datetime | None = None) -> None:
    """Give it in this month for the last time."""
    month = (now or timezone.now()).astimezone(UTC).date().replace(day=1)
    RecurringCredit.objects.filter(pk=recurring.pk).update(last_month=max(month, recurring.first_month))


def give_monthly_credit(*, now: datetime | None = None) -> int:
    """Give what is due in the month of `now`, once for each. Returns how many were given now.

    Raises the error of the last that could not be given, once it was tried for all.
    """
    now = (now or timezone.now()).astimezone(UTC)
    month = now.date().replace(day=1)
    rows = RecurringCredit.objects.filter(first_month__lte=month).exclude(last_month__lt=month)
    rows = rows.exclude(organization__status=Organization.Status.CLOSED)
    given = set(
        LedgerTransaction.objects.filter(
            idempotency_key__in=[_key(pk, month) for pk in rows.values_list("pk", flat=True)]
        ).values_list("idempotency_key", flat=True)
    )
    due = [row for row in rows.select_related("organization").order_by("pk") if _key(row.pk, month) not in given]
    count = 0
    failure: Exception | None = None
    for row in watched(due, len(due)):
        try:
            count += _give(row, month)
        except (InvalidTopUpError, LedgerError) as error:
            logger.warning("Recurring credit %s is not given: %s", row.pk, error)
            failure = error
        if count >= MAX_GIVEN_PER_ROUND:
            break
    if failure is not None:
        raise failure
    return count


def _give(recurring: RecurringCredit, month: date) -> bool:
    posted = grant_credit(
        recurring.organization,
        amount_nanos=recurring.amount_nanos,
        kind=CreditLot.Kind.PROMOTIONAL,
        reason=f"{recurring.reason}, {month:%B %Y}",
        actor=ACTOR,
        idempotency_key=_key(recurring.pk, month),
        expires_at=_first_moment_after(month),
        priority=PRIORITY,
    )
    return posted.is_new


def _key(pk: int, month: date) -> str:
    return f"recurring:{pk}:{month:%Y-%m}"


def _first_moment_after(month: date) -> datetime:
    first = month.toordinal() - ORDINAL_OF_EPOCH
    after = date_of(first + days_in_month(first))
    return datetime(after.year, after.month, after.day, tzinfo=UTC)
