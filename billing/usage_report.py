"""What an organization used: totals from the hourly roll-ups, and its requests page by page, newest first."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import islice
from typing import TypeVar
from uuid import UUID

from django.db.models import Max, Q, QuerySet, Sum

from accounts.models import Organization
from billing.corrected_usage import show_corrected
from billing.models import FailedRequest, UsageHour, UsageRecord
from billing.request_id import first_id_at

PAGE_ROWS = 50
MAX_PAGE_ROWS = 200
MAX_RANGE_DAYS = 92  # Of one listing, so that a filter that matches little cannot read a year of records.
MAX_EXPORT_ROWS = 10_000
EXPORT_CHUNK_ROWS = 1000
MODEL_CHOICE_DAYS = 92
MAX_MODEL_CHOICES = 200


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over settled requests. Cost in nano-dollars."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_write_tokens: int = 0
    cache_read_tokens: int = 0
    cost_nanos: int = 0


@dataclass(frozen=True, slots=True)
class DayCost:
    day: date
    requests: int
    cost_nanos: int


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """Days are UTC, both ends included. Empty key and model mean all; `outcome` is "", "billed" or "failed"."""

    first_day: date
    last_day: date
    key_id: int | None = None
    model_id: str = ""
    outcome: str = ""

    @property
    def since(self) -> datetime:
        return start_of_day(self.first_day)

    @property
    def until(self) -> datetime:
        return start_of_day(self.last_day + timedelta(days=1))


ListedRequest = UsageRecord | FailedRequest
Row = TypeVar("Row", UsageRecord, FailedRequest)


@dataclass(frozen=True, slots=True)
class RequestPage:
    """`older_than` is the id that the next page starts below; None on the last page."""

    requests: Sequence[ListedRequest]
    older_than: UUID | None


def start_of_day(day: date) -> datetime:
    return datetime.combine(day, time.min, tzinfo=UTC)


def sum_usage(
    organization: Organization,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    key_id: int | None = None,
    model_id: str = "",
) -> Totals:
    """Return the totals of settled requests in `since` <= time < `until`, to the hour."""
    hours = UsageHour.objects.filter(organization_id=organization.pk)
    if since is not None:
        hours = hours.filter(hour__gte=since)
    if until is not None:
        hours = hours.filter(hour__lt=until)
    if key_id is not None:
        hours = hours.filter(key_id=key_id)
    if model_id:
        hours = hours.filter(model_id=model_id)
    names = Totals.__dataclass_fields__
    sums = hours.aggregate(**{name: Sum(name) for name in names})
    return Totals(**{name: int(value) for name, value in sums.items() if value is not None})


def cost_by_day(organization: Organization, *, last_day: date, days: int) -> list[DayCost]:
    """Return one row for each of the `days` UTC days up to `last_day`, days without usage included."""
    first_day = last_day - timedelta(days=days - 1)
    rows = (
        UsageHour.objects.filter(
            organization_id=organization.pk,
            hour__gte=start_of_day(first_day),
            hour__lt=start_of_day(last_day + timedelta(days=1)),
        )
        .order_by()
        .values_list("hour__date")
        .annotate(requests=Sum("requests"), cost_nanos=Sum("cost_nanos"))
    )
    found = {day: (int(requests), int(cost_nanos)) for day, requests, cost_nanos in rows}
    all_days = [first_day + timedelta(days=offset) for offset in range(days)]
    return [DayCost(day, *found.get(day, (0, 0))) for day in all_days]


@dataclass(frozen=True, slots=True)
class KeyActivity:
    """`last_hour` is the beginning of the last hour with a settled request; cost is that of the current month."""

    last_hour: datetime
    month_cost_nanos: int


def key_activity(organization: Organization) -> dict[int, KeyActivity]:
    """Return by key id when each key was last used and what it cost this month, from roll-ups of MODEL_CHOICE_DAYS."""
    now = datetime.now(UTC)
    month = start_of_day(now.date().replace(day=1))
    rows = (
        UsageHour.objects.filter(
            organization_id=organization.pk, hour__gte=start_of_day(now.date() - timedelta(days=MODEL_CHOICE_DAYS))
        )
        .order_by()
        .values_list("key_id")
        .annotate(last_hour=Max("hour"), month_cost_nanos=Sum("cost_nanos", filter=Q(hour__gte=month), default=0))
    )
    return {key_id: KeyActivity(last_hour, int(month_cost)) for key_id, last_hour, month_cost in rows}


def used_model_ids(organization: Organization, *, today: date) -> list[str]:
    """Return the language models used lately, to choose from."""
    since = start_of_day(today - timedelta(days=MODEL_CHOICE_DAYS))
    models = UsageHour.objects.filter(organization_id=organization.pk, hour__gte=since).order_by("model_id")
    return list(models.values_list("model_id", flat=True).distinct()[:MAX_MODEL_CHOICES])


def list_requests(
    organization: Organization, wanted: UsageFilter, *, before: UUID | None = None, limit: int = PAGE_ROWS
) -> RequestPage:
    """Return billed and failed requests below `before`, newest first; no page costs more than another."""
    limit = min(limit, MAX_PAGE_ROWS)
    found = list(_newest(organization, wanted, before=before, limit=limit + 1))
    more = len(found) > limit
    requests = list(show_corrected(found[:limit]))
    return RequestPage(requests=requests, older_than=requests[-1].request_id if more else None)


def latest_requests(organization: Organization, *, limit: int) -> list[ListedRequest]:
    billed = UsageRecord.objects.filter(organization_id=organization.pk)[:limit]
    failed = FailedRequest.objects.filter(organization_id=organization.pk)[:limit]
    return list(show_corrected(list(_merge(billed, failed, limit=limit))))


def export_requests(organization: Organization, wanted: UsageFilter) -> Iterator[ListedRequest]:
    """Yield at most MAX_EXPORT_ROWS requests, newest first, read in chunks."""
    left = MAX_EXPORT_ROWS
    before: UUID | None = None
    while left > 0:
        chunk = list(_newest(organization, wanted, before=before, limit=min(EXPORT_CHUNK_ROWS, left)))
        if not chunk:
            return
        yield from show_corrected(chunk)
        left -= len(chunk)
        before = chunk[-1].request_id


def _newest(
    organization: Organization, wanted: UsageFilter, *, before: UUID | None, limit: int
) -> Iterable[ListedRequest]:
    billed = _narrow(UsageRecord.objects.filter(organization_id=organization.pk), wanted, before)
    failed = _narrow(FailedRequest.objects.filter(organization_id=organization.pk), wanted, before)
    if wanted.outcome == "billed":
        return billed[:limit]
    if wanted.outcome == "failed":
        return failed[:limit]
    return _merge(billed[:limit], failed[:limit], limit=limit)


def _narrow(rows: QuerySet[Row], wanted: UsageFilter, before: UUID | None) -> QuerySet[Row]:
    rows = rows.filter(request_id__gte=first_id_at(wanted.since), request_id__lt=first_id_at(wanted.until))
    if before is not None:
        rows = rows.filter(request_id__lt=before)
    if wanted.key_id is not None:
        rows = rows.filter(key_id=wanted.key_id)
    if wanted.model_id:
        rows = rows.filter(model_id=wanted.model_id)
    return rows.order_by("-request_id")


def _merge(billed: Iterable[UsageRecord], failed: Iterable[FailedRequest], *, limit: int) -> Iterator[ListedRequest]:
    both: tuple[Iterable[ListedRequest], Iterable[ListedRequest]] = (billed, failed)
    return islice(heapq.merge(*both, key=lambda request: request.request_id, reverse=True), limit)
