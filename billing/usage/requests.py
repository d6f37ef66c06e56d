"""Requests one by one, newest first: billed, failed and refused. No page costs more than another, whatever it filters.

Pages go both ways from a request id: below it (`before`) or above it (`after`).
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import islice
from typing import TypeVar
from uuid import UUID

from django.db.models import Max, Min, Q, QuerySet

from accounts.models import Organization
from billing.models import FailedRequest, RefusedRequest, RequestDetail, UsageDay, UsageRecord
from billing.read_replica import read
from billing.request_id import first_id_at
from billing.usage.corrected import show_corrected
from billing.usage.report import start_of_day
from billing.usage.sums import ATTRIBUTES, UsageFilter

PAGE_ROWS = 50
MAX_PAGE_ROWS = 200
MAX_EXPORT_ROWS = 200_000
EXPORT_CHUNK_ROWS = 1000
LATEST_DAYS = 31
# Of an end user, a tag or a session, when only some of its requests are asked for: what one page looks through.
SCANNED_AT_ONCE = 500
MAX_SCANS = 10
OUTCOMES = ("billed", "failed", "refused")

ListedRequest = UsageRecord | FailedRequest | RefusedRequest
Row = TypeVar("Row", UsageRecord, FailedRequest, RefusedRequest)


@dataclass(frozen=True, slots=True)
class RequestFilter(UsageFilter):
    """`outcome` is "" (all of them), "billed", "failed" or "refused"."""

    outcome: str = ""


@dataclass(frozen=True, slots=True)
class RequestPage:
    """`older_than` and `newer_than` are the ids that the pages beside it begin at; None where there is none."""

    requests: Sequence[ListedRequest]
    older_than: UUID | None
    newer_than: UUID | None


@dataclass(frozen=True, slots=True)
class _Reach:
    """What a page reads: ids in `since` <= id < `until`, from the top or, `is_rising`, from below."""

    since: UUID
    until: UUID
    is_rising: bool = False

    def cut(self, rows: QuerySet[Row]) -> QuerySet[Row]:
        rows = rows.filter(request_id__gte=self.since, request_id__lt=self.until)
        return rows.order_by("request_id" if self.is_rising else "-request_id")

    def beyond(self, request_id: UUID) -> "_Reach":
        """Return what is left once all up to this id is read."""
        if self.is_rising:
            return replace(self, since=UUID(int=request_id.int + 1))
        return replace(self, until=request_id)

    def has_read(self, request_id: UUID, *, as_far_as: UUID) -> bool:
        return request_id <= as_far_as if self.is_rising else request_id >= as_far_as


def list_requests(
    organization: Organization,
    wanted: RequestFilter,
    *,
    before: UUID | None = None,
    after: UUID | None = None,
    limit: int = PAGE_ROWS,
) -> RequestPage:
    """Return the requests next below `before`, or next above `after`; the newest without either."""
    limit = min(limit, MAX_PAGE_ROWS)
    reach = _reach_of(wanted, before=before, after=after)
    found, goes_on_at = _read(organization, wanted, reach, limit=limit + 1)
    more = len(found) > limit
    found = found[:limit]
    if more:
        goes_on_at = found[-1].request_id
    if reach.is_rising:
        found.reverse()
        newest = goes_on_at
        oldest = found[-1].request_id if found else after
        return RequestPage(list(show_corrected(found)), oldest, newest)
    # Whoever came from above can go back there; the first page has nothing above it.
    newest = (found[0].request_id if found else before) if before is not None else None
    return RequestPage(list(show_corrected(found)), goes_on_at, newest)


def latest_requests(organization: Organization, *, limit: int) -> list[ListedRequest]:
    """Return the latest requests of the last month; of an organization that had fewer, the latest of its whole time."""
    today = datetime.now(UTC).date()
    lately, always = today - timedelta(days=LATEST_DAYS), organization.created_at.date() - timedelta(days=1)
    found = _latest(organization, lately, today, limit=limit)
    if len(found) < limit and always < lately:
        found = _latest(organization, always, today, limit=limit)
    return list(show_corrected(found))


def _latest(organization: Organization, first_day: date, today: date, *, limit: int) -> list[ListedRequest]:
    reach = _Reach(first_id_at(start_of_day(first_day)), first_id_at(start_of_day(today + timedelta(days=2))))
    billed = reach.cut(read(UsageRecord).filter(organization_id=organization.pk))[:limit]
    failed = reach.cut(read(FailedRequest).filter(organization_id=organization.pk))[:limit]
    refused = reach.cut(read(RefusedRequest).filter(organization_id=organization.pk))[:limit]
    return list(_merge(billed, failed, refused, limit=limit))


def has_requests(organization: Organization) -> bool:
    """Return whether anything was ever asked for with a key of the organization."""
    tables = (UsageRecord, FailedRequest, RefusedRequest)
    return any(read(table).filter(organization_id=organization.pk).exists() for table in tables)


def find_details(requests: Iterable[ListedRequest]) -> dict[UUID, RequestDetail | RefusedRequest]:
    """Return what each of these requests says of whom it is for, where it says anything."""
    listed = list(requests)
    details: dict[UUID, RequestDetail | RefusedRequest] = {
        row.request_id: row for row in listed if isinstance(row, RefusedRequest)
    }
    ids = [row.request_id for row in listed if row.request_id not in details]
    if ids:
        details |= read(RequestDetail).in_bulk(ids)
    return details


def export_requests(
    organization: Organization, wanted: RequestFilter
) -> Iterator[tuple[ListedRequest, RequestDetail | RefusedRequest | None]]:
    """Yield at most MAX_EXPORT_ROWS requests with what they say of whom they are for, newest first, read in chunks."""
    left = MAX_EXPORT_ROWS
    reach = _reach_of(wanted)
    while left > 0:
        chunk, goes_on_at = _read(organization, wanted, reach, limit=min(EXPORT_CHUNK_ROWS, left))
        details = find_details(chunk)
        for listed in show_corrected(chunk):
            yield listed, details.get(listed.request_id)
        left -= len(chunk)
        if goes_on_at is None:
            return
        reach = reach.beyond(goes_on_at)


def _reach_of(wanted: RequestFilter, *, before: UUID | None = None, after: UUID | None = None) -> _Reach:
    since = first_id_at(start_of_day(wanted.first_day))
    until = first_id_at(start_of_day(wanted.last_day + timedelta(days=1)))
    if after is not None:
        return _Reach(max(since, UUID(int=after.int + 1)), until, is_rising=True)
    return _Reach(since, min(until, before) if before is not None else until)


def _read(
    organization: Organization, wanted: RequestFilter, reach: _Reach, *, limit: int
) -> tuple[list[ListedRequest], UUID | None]:
    """Return up to `limit` requests, and where to go on: None when there is nothing more."""
    if wanted.key_ids == ():
        return [], None
    lists: list[Iterable[ListedRequest]] = []
    goes_on_at: UUID | None = None
    if wanted.outcome in ("", "refused"):
        refused = read(RefusedRequest).filter(_narrow(wanted, *ATTRIBUTES), organization_id=organization.pk)
        lists.append(reach.cut(refused)[:limit])
    if wanted.names_attributes and wanted.outcome != "refused":
        found, goes_on_at = _scan_details(organization, wanted, reach, limit=limit)
        lists.append(found)
    elif wanted.outcome != "refused":
        lists += _ended(organization, wanted, reach, limit=limit)
    merged = list(_merge(*lists, limit=limit, is_rising=reach.is_rising))
    if goes_on_at is not None:
        # What lies beyond the reach of the scan waits for the next page.
        merged = [row for row in merged if reach.has_read(row.request_id, as_far_as=goes_on_at)]
    if len(merged) == limit:
        goes_on_at = merged[-1].request_id
    return merged, goes_on_at


def _ended(
    organization: Organization, wanted: RequestFilter, reach: _Reach, *, limit: int
) -> list[Iterable[ListedRequest]]:
    """Return the billed and the failed requests that are asked for, each list for itself."""
    lists: list[Iterable[ListedRequest]] = []
    if wanted.outcome in ("", "billed") and (used := _days_of_use(organization, wanted, reach)) is not None:
        billed = read(UsageRecord).filter(_narrow(wanted), organization_id=organization.pk)
        lists.append(used.cut(billed)[:limit])
    if wanted.outcome in ("", "failed"):
        failed = read(FailedRequest).filter(_narrow(wanted), organization_id=organization.pk)
        lists.append(reach.cut(failed)[:limit])
    return lists


def _days_of_use(organization: Organization, wanted: RequestFilter, reach: _Reach) -> _Reach | None:
    """Return the part of `reach` in which a model was used at all, so that nobody looks for it elsewhere."""
    if not wanted.model_id:
        return reach
    days = (
        read(UsageDay)
        .filter(_narrow(wanted), organization_id=organization.pk, day__gte=wanted.first_day, day__lte=wanted.last_day)
        .aggregate(first=Min("day"), last=Max("day"))
    )
    if days["first"] is None:
        return None
    # An id is made by a gateway's clock, its day by that of Redis.
    since = first_id_at(start_of_day(days["first"] - timedelta(days=1)))
    until = first_id_at(start_of_day(days["last"] + timedelta(days=2)))
    return replace(reach, since=max(reach.since, since), until=min(reach.until, until))


def _scan_details(
    organization: Organization, wanted: RequestFilter, reach: _Reach, *, limit: int
) -> tuple[list[ListedRequest], UUID | None]:
    """Return billed and failed requests of an end user, tag or session, and where to go on once it is too much."""
    found: list[ListedRequest] = []
    details = read(RequestDetail).filter(_narrow(wanted, *ATTRIBUTES, only=ATTRIBUTES), organization_id=organization.pk)
    for name in ATTRIBUTES:
        if getattr(wanted, name):
            details = details.exclude(**{name: ""})  # As the index says it.
    for _ in range(MAX_SCANS):
        ids = list(reach.cut(details).values_list("request_id", flat=True)[:SCANNED_AT_ONCE])  # type: ignore[type-var]
        if ids:
            whole = replace(wanted, end_user="", tag="", session="")
            narrowed = _narrow(whole) & Q(request_id__in=ids, organization_id=organization.pk)
            lists: list[Iterable[ListedRequest]] = []
            if wanted.outcome in ("", "billed"):
                lists.append(reach.cut(read(UsageRecord).filter(narrowed)))
            if wanted.outcome in ("", "failed"):
                lists.append(reach.cut(read(FailedRequest).filter(narrowed)))
            found += _merge(*lists, limit=SCANNED_AT_ONCE, is_rising=reach.is_rising)
        if len(ids) < SCANNED_AT_ONCE:
            return found[:limit], None
        reach = reach.beyond(ids[-1])
        if len(found) >= limit:
            return found[:limit], None
    return found, ids[-1]


def _narrow(wanted: RequestFilter, *attributes: str, only: Sequence[str] = ()) -> Q:
    """Return the conditions on key and model, and on these attributes where a table has them."""
    narrowed = Q()
    if wanted.key_ids is not None and not only:
        narrowed &= Q(key_id__in=wanted.key_ids)
    if wanted.model_id and not only:
        narrowed &= Q(model_id=wanted.model_id)
    for name in attributes:
        if value := getattr(wanted, name):
            narrowed &= Q(**{name: value})
    return narrowed


def _merge(*lists: Iterable[ListedRequest], limit: int, is_rising: bool = False) -> Iterator[ListedRequest]:
    merged = heapq.merge(*lists, key=lambda request: request.request_id, reverse=not is_rising)
    return islice(merged, limit)
