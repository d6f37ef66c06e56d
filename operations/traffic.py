"""What all organizations together did, by minute and hour: sums that are copied from records about once a minute.

The dashboard reads these few rows, never the records of a month. A minute is counted again while usage of it may still
be on its way; so one that is late, doubled or killed in the middle counts the same. Roll-ups of organizations cannot
serve: there are as many of them as organizations, keys and models have hours.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction
from django.db.models import Sum

from billing.admission.blocking import oldest_waiting_ms
from billing.admission.errors import AdmissionUnavailableError
from billing.models import FailedRequest, RefusedRequest, UsageRecord
from billing.request_id import first_id_at, time_of
from billing.shards import SHARD_COUNT
from billing.watching import watched
from operations.models import TrafficHour, TrafficMinute

COUNTED_AGAIN = timedelta(minutes=5)
# A request id is made by a gateway's clock, and stamped by Redis' at admission.
CLOCK_SKEW = timedelta(minutes=10)
HOUR = timedelta(hours=1)
MINUTES_KEPT = timedelta(days=3)
HOURS_KEPT = timedelta(days=400)
LONGEST_GAP = timedelta(days=70)  # Beyond this nobody looks: a month, and the month before.
MAX_SECONDS = 20.0  # Of one run; the next one goes on where it stopped.

COUNT = """
INSERT INTO operations_trafficminute
    (minute, requests, failed, refused, bounded, cost_nanos, upstream_cost_nanos)
SELECT minute, sum(requests), sum(failed), sum(refused), sum(bounded), sum(cost), sum(upstream_cost) FROM (
    SELECT date_trunc('minute', admitted_at) AS minute, count(*) AS requests, 0 AS failed, 0 AS refused,
        count(*) FILTER (WHERE usage_source = 'bounded') AS bounded, sum(cost_nanos) AS cost,
        sum(upstream_cost_nanos) AS upstream_cost
    FROM billing_usagerecord WHERE request_id >= %(first)s AND request_id < %(last)s
        AND admitted_at >= %(begins)s AND admitted_at < %(ends)s GROUP BY 1
    UNION ALL
    SELECT date_trunc('minute', admitted_at), 0, count(*), 0, 0, 0, sum(upstream_cost_nanos)
    FROM billing_failedrequest WHERE request_id >= %(first)s AND request_id < %(last)s
        AND admitted_at >= %(begins)s AND admitted_at < %(ends)s GROUP BY 1
    UNION ALL
    SELECT date_trunc('minute', refused_at), 0, 0, sum(1 + repeats), 0, 0, 0
    FROM billing_refusedrequest WHERE refused_at >= %(begins)s AND refused_at < %(ends)s GROUP BY 1
    UNION ALL
    SELECT %(begins)s, 0, 0, 0, 0, 0, 0  -- So that the window is known to be counted.
) counted GROUP BY minute
ON CONFLICT (minute) DO UPDATE SET requests = excluded.requests, failed = excluded.failed,
    refused = excluded.refused, bounded = excluded.bounded, cost_nanos = excluded.cost_nanos,
    upstream_cost_nanos = excluded.upstream_cost_nanos
"""
SUM_UP = """
INSERT INTO operations_traffichour (hour, requests, failed, refused, bounded, cost_nanos, upstream_cost_nanos)
SELECT date_trunc('hour', minute), sum(requests), sum(failed), sum(refused), sum(bounded), sum(cost_nanos),
    sum(upstream_cost_nanos)
FROM operations_trafficminute WHERE minute >= %(begins)s AND minute < %(ends)s GROUP BY 1
ON CONFLICT (hour) DO UPDATE SET requests = excluded.requests, failed = excluded.failed,
    refused = excluded.refused, bounded = excluded.bounded, cost_nanos = excluded.cost_nanos,
    upstream_cost_nanos = excluded.upstream_cost_nanos
"""


@dataclass(frozen=True, slots=True)
class Sums:
    """Of a span of time. Amounts in nano-dollars."""

    requests: int = 0
    failed: int = 0
    refused: int = 0
    bounded: int = 0
    cost_nanos: int = 0
    upstream_cost_nanos: int = 0

    @property
    def margin_nanos(self) -> int:
        return self.cost_nanos - self.upstream_cost_nanos


NAMES = [field.name for field in fields(Sums)]


def count_traffic(*, now: datetime) -> int:
    """Count what is new, and what may have changed since; return how many hours were counted, of which some in part.

    After a pause it goes on where it stopped, the oldest first, for MAX_SECONDS at a time.
    """
    ends_at = time.monotonic() + MAX_SECONDS
    begins = next_to_count(now)
    hours = 0
    for window in watched(list(_windows(begins, now))):
        if time.monotonic() >= ends_at:
            break
        count_window(*window)
        hours += 1
    TrafficMinute.objects.filter(minute__lt=now - MINUTES_KEPT).delete()
    TrafficHour.objects.filter(hour__lt=now - HOURS_KEPT).delete()
    return hours


def _windows(begins: datetime, ends: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield the parts of a time that lie within one hour each."""
    while begins < ends:
        until = min(ends, _hour_of(begins) + HOUR)
        yield begins, until
        begins = until


def count_window(begins: datetime, ends: datetime) -> None:
    """Count the minutes of a window, which lies within one hour, and that hour."""
    hour = _hour_of(begins)
    ids = {"first": first_id_at(begins - CLOCK_SKEW), "last": first_id_at(ends + CLOCK_SKEW)}
    with transaction.atomic(), connection.cursor() as cursor:
        TrafficMinute.objects.filter(minute__gte=begins, minute__lt=ends).delete()
        cursor.execute(COUNT, {"begins": begins, "ends": ends, **ids})
        cursor.execute(SUM_UP, {"begins": hour, "ends": hour + HOUR})


def recount_day(day: date) -> list[str]:
    """Count the hours of a past UTC day again, for usage that came late; return a line for each that had changed."""
    begins = datetime(day.year, day.month, day.day, tzinfo=UTC)
    before = {row.hour: row for row in TrafficHour.objects.filter(hour__gte=begins, hour__lt=begins + 24 * HOUR)}
    changed = []
    for number in watched(range(24), 24):
        hour = begins + number * HOUR
        count_window(hour, hour + HOUR)
        after = TrafficHour.objects.get(hour=hour)
        was = before.get(hour, TrafficHour(hour=hour))
        if any(getattr(was, name) != getattr(after, name) for name in NAMES):
            changed.append(
                f"{hour:%Y-%m-%d %H}h: {was.requests:,} requests were counted, and there are {after.requests:,}."
            )
    return changed


def traffic_between(begins: datetime, ends: datetime) -> Sums:
    """Return the sums of the minutes of a span of no more than MINUTES_KEPT."""
    rows = TrafficMinute.objects.filter(minute__gte=begins, minute__lt=ends)
    return _sums(rows.aggregate(**{name: Sum(name) for name in NAMES}))


def minutes_between(begins: datetime, ends: datetime) -> dict[datetime, Sums]:
    rows = TrafficMinute.objects.filter(minute__gte=begins, minute__lt=ends).values("minute", *NAMES)
    return {row["minute"]: _sums(row) for row in rows}


def hours_between(begins: datetime, ends: datetime) -> dict[datetime, Sums]:
    rows = TrafficHour.objects.filter(hour__gte=begins, hour__lt=ends).values("hour", *NAMES)
    return {row["hour"]: _sums(row) for row in rows}


def _sums(row: dict[str, object]) -> Sums:
    return Sums(**{name: int(str(row[name] or 0)) for name in NAMES})


def next_to_count(now: datetime) -> datetime:
    """Return the minute from which on may have changed: of the oldest event that waits, or of a while ago."""
    last = TrafficMinute.objects.order_by("-minute").values_list("minute", flat=True).first()
    since = now - COUNTED_AGAIN
    try:
        oldest_ms = oldest_waiting_ms(range(SHARD_COUNT))
    except AdmissionUnavailableError:
        oldest_ms = 0
    if oldest_ms:
        since = min(since, datetime.fromtimestamp(oldest_ms / 1000, UTC) - COUNTED_AGAIN)
    since = max(since, now - HOUR)
    return _minute_of(max(min(since, last or _first_request(now)), now - LONGEST_GAP))


def _first_request(now: datetime) -> datetime:
    """Return when the first request was made of all that are kept; `now` when there was none."""
    firsts = [
        table.objects.order_by("request_id").values_list("request_id", flat=True).first()
        for table in (UsageRecord, FailedRequest, RefusedRequest)
    ]
    return min([now, *(time_of(request_id) for request_id in firsts if request_id is not None)])


def _minute_of(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _hour_of(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
