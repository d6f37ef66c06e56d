"""What is left between what organizations paid and what providers charged, for operators.

Read from usage records, which hold both amounts of every request, and from failed requests, which cost us something at
times and never bring anything. Re-rated requests count as what they cost since; refunds and adjustments by hand are not
taken off: they are no question of price. Windows are half open and by the time that the request id was made.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal
from uuid import UUID

from django.db import connection
from django.db.models import Count, F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from accounts.models import Organization
from billing.bulk_rows import fetch_all
from billing.models import FailedRequest, ReratedRequest, UsageRecord
from billing.request_id import first_id_at

MAX_WINDOW = timedelta(days=92)
MAX_REQUESTS = 1000

Grouping = Literal["model", "organization", "upstream"]


class WindowTooLongError(ValueError):
    """The window is empty or longer than MAX_WINDOW, and would read too much."""


@dataclass(slots=True)
class Margin:
    """Sums of one model, organization or upstream, in nano-dollars. `requests` are the billed ones."""

    name: str
    requests: int = 0
    cost_nanos: int = 0
    upstream_cost_nanos: int = 0

    @property
    def margin_nanos(self) -> int:
        return self.cost_nanos - self.upstream_cost_nanos

    @property
    def margin_percent(self) -> float | None:
        """The share of what was paid that is left, for display; None where nothing was paid."""
        return 100 * self.margin_nanos / self.cost_nanos if self.cost_nanos else None


def margins(grouping: Grouping, *, begins: datetime, ends: datetime) -> list[Margin]:
    """Return the margin of each model, organization or upstream in the window, the largest cost first.

    What failed attempts cost counts for the model and organization of the request, and for the upstream that charged
    it; what was paid counts for the upstream that served. Raises WindowTooLongError.
    """
    billed, failed = _records(begins, ends), _failed(begins, ends)
    rerated = partial(_rerated_differences, begins, ends)
    if grouping == "upstream":
        rows = _add_up(_sums(billed, "upstream"), _attempt_costs(begins, ends), rerated("upstream"))
    elif grouping == "model":
        sums = _sums(billed, "model_id", with_upstream=True)
        rows = _add_up(sums, _failed_costs(failed, "model_id"), rerated("model_id"))
    else:
        sums = _sums(billed, "organization_id", with_upstream=True)
        rows = _add_up(sums, _failed_costs(failed, "organization_id"), rerated("organization_id"))
        slugs = Organization.objects.in_bulk([int(row.name) for row in rows])
        for row in rows:
            row.name = slugs[int(row.name)].slug if int(row.name) in slugs else row.name
    return sorted(rows, key=lambda row: (-row.cost_nanos, row.name))


def request_margins(*, begins: datetime, ends: datetime, limit: int = 50) -> list[Margin]:
    """Return the requests of the window that left the least, worst first, named by id. Raises WindowTooLongError."""
    latest = ReratedRequest.objects.filter(request_id=OuterRef("request_id")).order_by("-id")
    paid = Coalesce(Subquery(latest.values("cost_after_nanos")[:1]), F("cost_nanos"))
    records = _records(begins, ends).annotate(paid=paid).annotate(left=F("paid") - F("upstream_cost_nanos"))
    return [
        Margin(record.request_id.hex, 1, record.paid, record.upstream_cost_nanos)
        for record in records.order_by("left", "request_id")[: min(limit, MAX_REQUESTS)]
    ]


def _window(begins: datetime, ends: datetime) -> tuple[UUID, UUID]:
    if not timedelta() < ends - begins <= MAX_WINDOW:
        raise WindowTooLongError(f"A window lasts up to {MAX_WINDOW.days} days; this one is {ends - begins} long.")
    return first_id_at(begins), first_id_at(ends)


def _records(begins: datetime, ends: datetime) -> QuerySet[UsageRecord]:
    first, end = _window(begins, ends)
    return UsageRecord.objects.filter(request_id__gte=first, request_id__lt=end)


def _failed(begins: datetime, ends: datetime) -> QuerySet[FailedRequest]:
    first, end = _window(begins, ends)
    return FailedRequest.objects.filter(request_id__gte=first, request_id__lt=end, upstream_cost_nanos__gt=0)


def _sums(records: QuerySet[UsageRecord], group: str, *, with_upstream: bool = False) -> Iterable[Margin]:
    rows: Iterable[dict[str, Any]] = (
        records.order_by()
        .values(group)
        .annotate(n=Count("pk"), cost=Sum("cost_nanos"), upstream_cost=Sum("upstream_cost_nanos"))
    )
    return [
        Margin(str(row[group]), row["n"], int(row["cost"]), int(row["upstream_cost"]) if with_upstream else 0)
        for row in rows
    ]


def _failed_costs(failed: QuerySet[FailedRequest], group: str) -> Iterable[Margin]:
    rows: Iterable[dict[str, Any]] = failed.order_by().values(group).annotate(cost=Sum("upstream_cost_nanos"))
    return [Margin(str(row[group]), upstream_cost_nanos=int(row["cost"])) for row in rows]


def _rerated_differences(begins: datetime, ends: datetime, group: str) -> Iterable[Margin]:
    """Return by how much re-ratings and corrections changed what was paid, by a column of the usage record."""
    first, end = _window(begins, ends)
    sql = f"""
        SELECT record.{group}, sum(change.cost), sum(change.upstream_cost)
        FROM (
            SELECT request_id, cost_after_nanos - cost_before_nanos AS cost, 0 AS upstream_cost
            FROM billing_reratedrequest WHERE request_id >= %(first)s AND request_id < %(end)s
            UNION ALL
            SELECT request_id, cost_after_nanos - cost_before_nanos,
                upstream_cost_after_nanos - upstream_cost_before_nanos
            FROM billing_usagecorrection WHERE request_id >= %(first)s AND request_id < %(end)s
        ) AS change JOIN billing_usagerecord AS record USING (request_id)
        GROUP BY record.{group}
    """  # noqa: S608  A column that is named in this file.
    with_upstream = group != "upstream"  # There the attempts say it.
    return [
        Margin(str(name), cost_nanos=int(cost), upstream_cost_nanos=int(upstream_cost) if with_upstream else 0)
        for name, cost, upstream_cost in fetch_all(sql, {"first": first, "end": end})
    ]


def _attempt_costs(begins: datetime, ends: datetime) -> Iterable[Margin]:
    """Return what each upstream charged, over all attempts of billed and failed requests."""
    first, end = _window(begins, ends)
    sql = """
        SELECT attempt.upstream, sum(attempt.upstream_cost_nanos)
        FROM (
            SELECT coalesce(correction.attempts, record.attempts) AS attempts
            FROM billing_usagerecord record LEFT JOIN billing_usagecorrection correction USING (request_id)
            WHERE request_id >= %(first)s AND request_id < %(end)s
            UNION ALL
            SELECT attempts FROM billing_failedrequest WHERE request_id >= %(first)s AND request_id < %(end)s
        ) AS request, jsonb_to_recordset(request.attempts) AS attempt(upstream text, upstream_cost_nanos bigint)
        WHERE attempt.upstream_cost_nanos > 0
        GROUP BY attempt.upstream
    """
    with connection.cursor() as cursor:
        cursor.execute(sql, {"first": first, "end": end})
        return [Margin(name, upstream_cost_nanos=int(cost)) for name, cost in cursor.fetchall()]


def _add_up(*parts: Iterable[Margin]) -> list[Margin]:
    total: dict[str, Margin] = {}
    for part in parts:
        for row in part:
            sums = total.setdefault(row.name, Margin(row.name))
            sums.requests += row.requests
            sums.cost_nanos += row.cost_nanos
            sums.upstream_cost_nanos += row.upstream_cost_nanos
    return list(total.values())
