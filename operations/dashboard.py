"""What operators look at first: what needs a person, what happened in a period, and how things stand now.

How things stand is what operations/status.py finds; what happened is what operations/traffic.py has counted. So the
page costs the same with a thousand records and with a hundred million.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone

from billing.approvals.notices import APPROVE_PERMISSION
from billing.models import Upstream
from operations.chart import Chart, draw_bars
from operations.status import Line, read_status
from operations.traffic import HOUR, Sums, hours_between, minutes_between

MAY_SEE_MONEY = "billing.view_ledgertransaction"
MAY_SEE_USAGE = "billing.view_usagerecord"
MAY_SEE_UPSTREAMS = "billing.view_upstream"
# Of what stands now, the numbers that are shown also when nobody needs to look.
SHOWN_NOW = (
    "settlement lag", "events waiting", "holds in flight", "unpublished changes", "breaks open", "in quarantine",
    "price drafts",
)  # fmt: skip
# Nothing is wrong with these, but somebody waits.
WAITING_APPROVALS = "waiting approvals"
FOR_A_SECOND_PERSON = (WAITING_APPROVALS, "price drafts")


@dataclass(frozen=True, slots=True)
class Period:
    """`step` is the span of one bar."""

    name: str
    title: str
    before: str
    length: timedelta
    step: timedelta
    label: str  # How the time of a bar is written, by strftime.


PERIODS = (
    Period("hour", "Last hour", "the hour before", HOUR, timedelta(minutes=1), "%H:%M"),
    Period("day", "Last 24 hours", "the 24 hours before", timedelta(days=1), HOUR, "%H:%M"),
    Period("month", "Last 30 days", "the 30 days before", timedelta(days=30), timedelta(days=1), "%b %d"),
)
DEFAULT_PERIOD = PERIODS[1]


@dataclass(frozen=True, slots=True)
class Card:
    """One number of the period beside that of the period before. `change` is in percent, None where there was none."""

    title: str
    value: int
    before: int
    is_money: bool = False

    @property
    def change(self) -> float | None:
        return 100 * (self.value - self.before) / abs(self.before) if self.before else None

    @property
    def change_text(self) -> str:
        """With its sign; empty where there was nothing before."""
        return "" if self.change is None else f"{self.change:+,.0f} %".replace("-", "\N{MINUS SIGN}")


@dataclass(frozen=True, slots=True)
class Row:
    """One bar, as the table beneath the charts has it."""

    begins: datetime
    sums: Sums


@dataclass(frozen=True, slots=True)
class Happened:
    period: Period
    begins: datetime
    ends: datetime
    rows: Sequence[Row]
    usage_cards: Sequence[Card]
    money_cards: Sequence[Card]
    usage_chart: Chart
    money_chart: Chart


@dataclass(frozen=True, slots=True)
class UpstreamState:
    name: str
    lines: Sequence[Line]


def add_dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's dashboard callback: what templates/admin/index.html shows above the list of tables.

    Each number is for operators who may open the table that it comes from.
    """
    wanted = request.GET.get("period", "")
    period = next((period for period in PERIODS if period.name == wanted), DEFAULT_PERIOD)
    lines = [line for line in read_status() if not line.permission or request.user.has_perm(line.permission)]
    may = {
        "see_money": request.user.has_perm(MAY_SEE_MONEY),
        "see_usage": request.user.has_perm(MAY_SEE_USAGE),
        "see_upstreams": request.user.has_perm(MAY_SEE_UPSTREAMS),
    }
    return {
        **context,
        "may": may,
        "periods": PERIODS,
        "urgent": _urgent(lines, decides=request.user.has_perm(APPROVE_PERMISSION)),
        "now": [line for line in lines if line.name in SHOWN_NOW],
        "upstreams": read_upstreams(lines) if may["see_upstreams"] else [],
        "happened": read_period(period, now=timezone.now()) if may["see_usage"] or may["see_money"] else None,
    }


def _urgent(lines: Sequence[Line], *, decides: bool) -> list[Line]:
    """Return what needs a person. What waits for a decision stands first for those who may decide it."""
    urgent = [line for line in lines if line.needs_a_person or line.name in FOR_A_SECOND_PERSON]
    return sorted(urgent, key=lambda line: not (decides and line.name == WAITING_APPROVALS))


def read_upstreams(lines: Sequence[Line]) -> list[UpstreamState]:
    """Return every upstream that is enabled, with what is not well of it."""
    names = Upstream.objects.filter(is_enabled=True).values_list("name", flat=True)
    return [UpstreamState(name, [line for line in lines if line.name == f"upstream {name}"]) for name in names]


def read_period(period: Period, *, now: datetime) -> Happened:
    """Return what happened in the period that ends with this minute, hour or day, and in the one before it."""
    ends = _floor(now, period.step) + period.step
    begins = ends - period.length
    earlier = begins - period.length
    count = period.length // period.step
    sums = _by_step(period, earlier, ends)
    rows = [Row(begins + number * period.step, sums[count + number]) for number in range(count)]
    total, before = _add_up(sums[count:]), _add_up(sums[:count])
    starts = [row.begins.strftime(period.label) for row in rows]
    return Happened(
        period=period,
        begins=begins,
        ends=ends,
        rows=rows,
        usage_cards=[
            Card("Requests", total.requests, before.requests),
            Card("Failed", total.failed, before.failed),
            Card("Refused", total.refused, before.refused),
        ],
        money_cards=[
            Card("Revenue", total.cost_nanos, before.cost_nanos, is_money=True),
            Card("Upstream cost", total.upstream_cost_nanos, before.upstream_cost_nanos, is_money=True),
            Card("Margin", total.margin_nanos, before.margin_nanos, is_money=True),
        ],
        usage_chart=draw_bars(
            starts,
            [row.sums.requests for row in rows],
            [row.sums.failed + row.sums.refused for row in rows],
            [one.requests for one in sums[:count]],
        ),
        money_chart=draw_bars(
            starts,
            [row.sums.cost_nanos for row in rows],
            [row.sums.upstream_cost_nanos for row in rows],
            [one.cost_nanos for one in sums[:count]],
        ),
    )


def _by_step(period: Period, begins: datetime, ends: datetime) -> list[Sums]:
    read = minutes_between if period.step < HOUR else hours_between
    sums = [Sums()] * ((ends - begins) // period.step)
    for moment, counted in read(begins, ends).items():
        at = (moment - begins) // period.step
        sums[at] = _add_up([sums[at], counted])
    return sums


def _add_up(rows: Sequence[Sums]) -> Sums:
    return Sums(
        requests=sum(row.requests for row in rows),
        failed=sum(row.failed for row in rows),
        refused=sum(row.refused for row in rows),
        bounded=sum(row.bounded for row in rows),
        cost_nanos=sum(row.cost_nanos for row in rows),
        upstream_cost_nanos=sum(row.upstream_cost_nanos for row in rows),
    )


def _floor(moment: datetime, step: timedelta) -> datetime:
    since = datetime(1970, 1, 1, tzinfo=UTC)
    return since + (moment - since) // step * step
