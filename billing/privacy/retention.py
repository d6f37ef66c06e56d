"""How long the details of an organization's requests are kept: who asked, in the client's words. Its choice, in days.

A day is erased as a whole, in one transaction, with what is summed by end user, tag and session of it, so that sums and
records go on agreeing. Late or twice changes nothing; usage records stay.
"""

import logging
import time
from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction

from accounts.models import Organization
from billing.models import AttributedDay, DataRetention, FailedRequest, RefusedRequest, SpenderDay, UsageRecord
from billing.request_id import first_id_at, time_of
from billing.watching import watched

MIN_DAYS, MAX_DAYS = 1, 3650
EPOCH_DAY = date(1970, 1, 1)
CLOCK_SKEW = timedelta(days=1)
ERASED_AGAIN_DAYS = 2  # Usage of an orphan may come after its day was erased.
MAX_SECONDS = 60.0  # Of one run; the next one goes on.

logger = logging.getLogger(__name__)

DETAILS = """
DELETE FROM billing_requestdetail detail USING (
    SELECT request_id FROM billing_usagerecord WHERE organization_id = %(organization)s
        AND request_id >= %(first)s AND request_id < %(last)s AND admitted_at < %(ends)s
    UNION ALL
    SELECT request_id FROM billing_failedrequest WHERE organization_id = %(organization)s
        AND request_id >= %(first)s AND request_id < %(last)s AND admitted_at < %(ends)s
) old WHERE detail.request_id = old.request_id AND detail.organization_id = %(organization)s
"""


class RetentionError(ValueError):
    """The number of days is out of bounds."""


def choose_retention(organization: Organization, *, details_days: int | None, actor: str) -> DataRetention:
    """Keep details for so many days from now on; None keeps them. Raises RetentionError."""
    if details_days is not None and not MIN_DAYS <= details_days <= MAX_DAYS:
        raise RetentionError(f"Details can be kept for {MIN_DAYS} to {MAX_DAYS} days.")
    row, _ = DataRetention.objects.update_or_create(
        organization=organization, defaults={"details_days": details_days, "changed_by": actor}
    )
    return row


def due_retentions(today: date) -> list[tuple[DataRetention, date, date]]:
    """Return who has days to erase: the first of them, and the day before which all is erased."""
    due = []
    for row in DataRetention.objects.exclude(details_days=None).select_related("organization").order_by("pk"):
        before = today - timedelta(days=row.details_days or 0)
        first = _first_day(row)
        if first is not None and (row.erased_before is None or row.erased_before < before):
            due.append((row, first, before))
    return due


def erase_due_details(*, now: datetime) -> int:
    """Erase what is due, the oldest days first, for MAX_SECONDS at a time; return how many details that were.

    Raises the error of the last organization for which it could not be done, once it was tried for all.
    """
    ends_at, erased = time.monotonic() + MAX_SECONDS, 0
    failure: Exception | None = None
    due = due_retentions(now.date())
    for row, first, before in watched(due, len(due)):
        day = first
        try:
            while day < before and time.monotonic() < ends_at:
                erased += erase_day(row.organization, day)
                day += timedelta(days=1)
                DataRetention.objects.filter(pk=row.pk).update(erased_before=day)
        except Exception as error:
            logger.warning("The details of organization %d of %s are erased later: %s", row.pk, day, error)
            failure = error
    if failure is not None:
        raise failure
    return erased


def erase_day(organization: Organization, day: date) -> int:
    """Erase the details of requests that were admitted on this UTC day or shortly before; return how many."""
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    ends = begins + timedelta(days=1)
    bounds = {"first": first_id_at(begins - CLOCK_SKEW), "last": first_id_at(ends + CLOCK_SKEW)}
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(DETAILS, {"organization": organization.pk, "ends": ends, **bounds})
        count = int(cursor.rowcount)
        AttributedDay.objects.filter(organization_id=organization.pk, day__lte=day).delete()
        # Budgets go on counting what was spent, by digests.
        days = SpenderDay.objects.filter(organization_id=organization.pk, admitted_day__lte=(day - EPOCH_DAY).days)
        days.exclude(end_user="").update(end_user="")
        RefusedRequest.objects.filter(organization_id=organization.pk, refused_at__lt=ends).delete()
    return count


def _first_day(row: DataRetention) -> date | None:
    """Return the first day that may have details: where the last run stopped, or that of the first request, whatever
    became of it.
    """
    if row.erased_before is not None:
        return row.erased_before - timedelta(days=ERASED_AGAIN_DAYS)
    first_ids = [
        table._default_manager.filter(organization_id=row.organization_id)
        .order_by("request_id")
        .values_list("request_id", flat=True)
        .first()
        for table in (UsageRecord, FailedRequest, RefusedRequest)
    ]
    return min((time_of(first).date() for first in first_ids if first is not None), default=None)
