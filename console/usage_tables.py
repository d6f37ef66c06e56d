"""What the usage page shows of sums: figures beside those of before, bars, and the table by group. No HTML."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from functools import cache, partial

from accounts.models import ApiKey, Organization
from billing.money import format_usd
from billing.usage.sums import OTHER, Group, Interval, Sums, UsageFilter, sum_by_group
from console.chart import Chart, Point, draw_bars
from console.forms.usage import METRICS, name_of
from console.usage_links import UsageLinks
from pages.templatetags.amounts import duration, pad, permille, shorten_usd, usd, usual_decimals

TOKEN_PARTS = ("input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens")
GROUP_COLUMNS = {"model": "model_id", "key": "key_id", "member": "key_id"}
EVERYTHING_PERMILLE = 1000


@dataclass(frozen=True, slots=True)
class Figure:
    """One number of the period, and how it changed since the one before (empty: there is nothing to compare)."""

    metric: str
    label: str
    text: str
    change: str
    query: str
    is_shown: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `query` filters by it, `requests` lists its requests; both are empty where nothing can."""

    name: str
    sums: Sums
    share_permille: int
    query: str = ""
    requests: str = ""
    is_quiet: bool = False


def figures(now: Sums, before: Sums, links: UsageLinks, shown: str) -> list[Figure]:
    return [
        Figure(
            metric=metric,
            label=label,
            text=text_of(metric, now),
            change=change_of(metric, now, before),
            query=links.query(metric=metric),
            is_shown=metric == shown,
        )
        for metric, label in METRICS.items()
    ]


def text_of(metric: str, sums: Sums) -> str:
    """Return the value of a metric as people read it; a dash where there is none."""
    value = value_of(metric, sums)
    if value is None:
        return "\N{EN DASH}"
    if metric == "spend":
        return usd_text(value)
    if metric == "cache":
        return permille(value)
    return duration(value) if metric == "latency" else f"{value:,}"


def axis_texts(metric: str, chart: Chart) -> dict[str, str]:
    """Return what stands at the top of the chart's axis and at its middle; amounts with the same decimals."""
    top, half = axis_text(metric, chart.top), axis_text(metric, chart.half)
    if metric == "spend":
        decimals = max(len(text.partition(".")[2]) for text in (top, half))
        top, half = pad(top, decimals), pad(half, decimals)
    return {"axis_top": top, "axis_half": half}


def axis_text(metric: str, value: int) -> str:
    """Return a value of the chart's axis."""
    if metric == "spend":
        return usd(value)
    if metric == "cache":
        return f"{value // 10} %"
    return duration(value) if metric == "latency" else f"{value:,}"


def value_of(metric: str, sums: Sums) -> int | None:
    """Return a metric as a whole number: nano-dollars, a count, permille or milliseconds."""
    if metric == "spend":
        return sums.cost_nanos
    if metric == "cache":
        return sums.cache_hit_permille
    if metric == "latency":
        return sums.mean_first_byte_ms
    return sums.tokens if metric == "tokens" else sums.requests


def usd_text(nanos: int) -> str:
    """Return an amount to the cent, or with more decimals where cents would hide it."""
    if nanos == 0:
        return "$0.00"
    return shorten_usd(-nanos, usual_decimals(nanos))[1:]  # Rounded up, as costs are.


def change_of(metric: str, now: Sums, before: Sums) -> str:
    """Return by how much a metric changed: in percent, a rate in points. Empty where there was none before."""
    value, earlier = value_of(metric, now), value_of(metric, before)
    if value is None or not earlier:
        return ""
    if value == earlier:
        return "unchanged"
    if metric == "cache":
        return f"{(value - earlier) / 10:+.1f} points".replace("-", "\N{MINUS SIGN}")
    percent = round(Fraction((value - earlier) * 100, earlier))
    return f"{percent:+,} %".replace("-", "\N{MINUS SIGN}") if percent else "nearly unchanged"


def draw_metric(
    metric: str,
    buckets: Sequence[date | datetime],
    now: Mapping[date | datetime, Sums],
    before: Sequence[Sums],
    interval: Interval,
    links: UsageLinks,
) -> Chart:
    """Return the bars of a metric by interval; each leads to its own days."""
    points = []
    link_of = cache(partial(_link_of, interval=interval, links=links))  # The hours of a day lead to the same place.
    for index, bucket in enumerate(buckets):
        sums = now.get(bucket, Sums())
        parts = tuple(getattr(sums, name) for name in TOKEN_PARTS) if metric == "tokens" else (value_of(metric, sums),)
        points.append(
            Point(
                label=label_of(bucket, interval),
                parts=tuple(part or 0 for part in parts),
                before=value_of(metric, before[index]) if index < len(before) else None,
                text=text_of(metric, sums),
                link=link_of(bucket.date() if isinstance(bucket, datetime) else bucket),
            )
        )
    return draw_bars(points, least_top=EVERYTHING_PERMILLE if metric == "cache" else 0)


def buckets_of(wanted: UsageFilter, interval: Interval) -> list[date | datetime]:
    """Return the beginning of each hour, day or month of the period, up to now."""
    days = [wanted.first_day + timedelta(days=offset) for offset in range(wanted.days)]
    if interval == "day":
        return list(days)
    if interval == "month":
        return sorted({day.replace(day=1) for day in days})
    now = datetime.now(UTC)
    hours = (datetime.combine(day, time(hour), UTC) for day in days for hour in range(24))
    return [hour for hour in hours if hour <= now] or [datetime.combine(days[0], time(), UTC)]


def label_of(bucket: date | datetime, interval: Interval) -> str:
    if isinstance(bucket, datetime):
        return f"{bucket:%b} {bucket.day}, {bucket:%H}:00"
    return f"{bucket:%b} {bucket.year}" if interval == "month" else f"{bucket:%b} {bucket.day}"


def _link_of(day: date, interval: Interval, links: UsageLinks) -> str:
    if interval == "month":
        return links.days(day, (day + timedelta(days=31)).replace(day=1) - timedelta(days=1))
    return links.days(day, day)


def rows_by_group(organization: Organization, wanted: UsageFilter, group: str, links: UsageLinks) -> list[Row]:
    """Return what each model, key, member, ... used, the dearest first, and what belongs to none of them."""
    column = GROUP_COLUMNS.get(group, group)
    groups = sum_by_group(organization, wanted, column)  # type: ignore[arg-type]  # one of its words
    named = list(_named(organization, groups.shown, group))
    parts = [sums for _, _, sums in named] + [sums for sums in (groups.rest, groups.unnamed) if sums]
    total = sum(sums.cost_nanos for sums in parts)

    def share(sums: Sums) -> int:
        return sums.cost_nanos * EVERYTHING_PERMILLE // total if total > 0 else 0

    rows = [
        Row(
            name,
            sums,
            share(sums),
            query=links.query(**{group: word}) if word else "",
            requests=links.requests(**{group: word, "outcome": "billed"}) if word else "",
            is_quiet=not word,
        )
        for name, word, sums in named
    ]
    if groups.rest:
        rows.append(Row("All others", groups.rest, share(groups.rest), is_quiet=True))
    if groups.unnamed:
        rows.append(Row("None named", groups.unnamed, share(groups.unnamed), is_quiet=True))
    return rows


def _named(organization: Organization, shown: Sequence[Group], group: str) -> Iterator[tuple[str, str, Sums]]:
    """Yield for each group its name, the word that filters by it (empty: none does), and its sums."""
    if group not in ("key", "member"):
        for found in shown:
            yield (
                ("Beyond the daily bound", "", found.sums)
                if found.name == OTHER
                else (found.name, found.name, found.sums)
            )
        return
    keys = {
        key.pk: key
        for key in ApiKey.objects.filter(
            organization=organization, pk__in=[found.name for found in shown]
        ).select_related("owner")
    }
    if group == "key":
        for found in shown:
            key = keys.get(found.name)
            yield name_of(key) if key else f"key {found.name}", str(found.name) if key else "", found.sums
        return
    by_member: dict[tuple[str, str], Sums] = {}
    for found in shown:
        owner = keys[found.name].owner if found.name in keys else None
        member = (owner.email, str(owner.pk)) if owner else ("Keys that nobody owns", "")
        by_member[member] = by_member.get(member, Sums()) + found.sums
    for (name, word), sums in sorted(by_member.items(), key=lambda item: -item[1].cost_nanos):
        yield name, word, sums


CSV_COLUMNS = (
    "requests",
    *TOKEN_PARTS,
    "cache_hit_percent",
    "mean_first_byte_ms",
    "mean_duration_ms",
    "cost_usd",
)


def csv_values(name: str, sums: Sums) -> list[object]:
    """Return a line of the CSV: exact amounts, and empty where there is no mean."""
    hits = sums.cache_hit_permille
    return [
        name,
        sums.requests,
        *(getattr(sums, part) for part in TOKEN_PARTS),
        "" if hits is None else f"{hits / 10:.1f}",
        "" if sums.mean_first_byte_ms is None else sums.mean_first_byte_ms,
        "" if sums.mean_duration_ms is None else sums.mean_duration_ms,
        format_usd(sums.cost_nanos),
    ]
