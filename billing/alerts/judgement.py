"""When spending becomes an alert, and when it is over. Pure: figures in, findings out.

A condition is raised at one figure and kept until another that lies further away, so that whoever wavers around a limit
is told once. What is counted by days, weeks or months names the period in its subject: the next period is a new matter.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from billing.days import date_of, days_in_month, first_day_of_month, first_day_of_week
from billing.money import NANOS_PER_USD

USUAL_DAYS = 8  # Before today: what a usual day is judged by.
# A warning at 80 % is over below 75 %, a balance that is low below $10 is over at $11.
BUDGET_BAND_PERCENT = 5
BALANCE_BAND_PERCENT = 10
HOLDS_TO_CLEAR = 2  # What no longer covers a usual request must cover so many of them again.
# Without a choice of its own an organization's balance is low when it covers fewer usual days, or less than this.
LOW_BALANCE_DAYS = 3
LEAST_LOW_BALANCE_NANOS = NANOS_PER_USD
# A new organization has no usual day: with fewer days of spend than this nothing is called unusual or projected.
LEAST_ACTIVE_DAYS = 3
# What is projected to pass a budget must fall this far below it before the alert is over.
PROJECTION_BAND_PERCENT = 5


@dataclass(frozen=True, slots=True)
class Spending:
    """Of one organization, or of a key, member or end user of it. Amounts in nano-dollars; budgets of None are not set.

    `key_id` is 0 and `spender` empty for the organization; `spender_label` is a member's address, or an end user's id.

    `available_nanos` is the posted balance and the credit limit; it and what follows are of organizations alone.
    `usual_nanos` is the sum of the USUAL_DAYS days before today, `active_days` how many of them had any spend.
    """

    organization_id: int
    key_id: int
    today_nanos: int
    week_nanos: int
    month_nanos: int
    daily_budget_nanos: int | None
    weekly_budget_nanos: int | None
    monthly_budget_nanos: int | None
    budget_warning_percent: int
    available_nanos: int = 0
    usual_nanos: int = 0
    active_days: int = 0
    low_balance_nanos: int | None = None
    spike_percent: int = 0
    spike_minimum_nanos: int = 0
    only_notifies: bool = False
    scope: str = ""
    spender: str = ""
    spender_label: str = ""

    @property
    def is_organization(self) -> bool:
        return not self.key_id and not self.scope

    @property
    def subject(self) -> str:
        """Whose it is, in front of what it is about: `key:7:`, `member:12:`."""
        if self.scope:
            return f"{self.scope}:{self.spender}:"
        return f"key:{self.key_id}:" if self.key_id else ""

    def budgets(self, today: int) -> Iterator[tuple[str, int, int, int]]:
        """Yield (period, its first day, spent, budget) of every budget that lets anything through."""
        for period, first_day, spent, budget in (
            ("day", today, self.today_nanos, self.daily_budget_nanos),
            ("week", first_day_of_week(today), self.week_nanos, self.weekly_budget_nanos),
            ("month", first_day_of_month(today), self.month_nanos, self.monthly_budget_nanos),
        ):
            if budget:
                yield period, first_day, spent, budget


@dataclass(frozen=True, slots=True)
class Finding:
    """A condition that holds. Where `is_raised` is False it only keeps open what was raised before."""

    organization_id: int
    kind: str
    subject: str = ""
    key_id: int | None = None
    is_raised: bool = True
    details: Mapping[str, Any] = field(default_factory=dict)


def is_near_a_limit(spending: Spending, today: int) -> bool:
    """Say whether it matters how much the next request may need."""
    if spending.is_organization and spending.available_nanos < low_balance_of(spending):
        return True
    return any(
        spent * 100 >= budget * (spending.budget_warning_percent - BUDGET_BAND_PERCENT)
        for _, _, spent, budget in spending.budgets(today)
    )


def judge(spending: Spending, *, today: int, usual_hold_nanos: int) -> Iterator[Finding]:
    """Yield what holds of an organization, key or spender. `today` counts UTC days since 1970-01-01."""
    yield from _judge_budgets(spending, today, usual_hold_nanos)
    if spending.is_organization:
        yield from _judge_balance(spending, usual_hold_nanos)
        yield from _judge_day(spending, today)
        yield from _judge_projection(spending, today)


def low_balance_of(spending: Spending) -> int:
    """Return below which amount the balance is low: as chosen, or a few usual days."""
    if spending.low_balance_nanos is not None:
        return spending.low_balance_nanos
    return max(LEAST_LOW_BALANCE_NANOS, spending.usual_nanos * LOW_BALANCE_DAYS // USUAL_DAYS)


def _judge_budgets(spending: Spending, today: int, usual_hold_nanos: int) -> Iterator[Finding]:
    for period, first_day, spent, budget in spending.budgets(today):
        details = {"period": period, "begins": _text_of(first_day), "spent_nanos": spent, "budget_nanos": budget}
        common: dict[str, Any] = {
            "organization_id": spending.organization_id,
            "subject": f"{spending.subject}{period}:{first_day}",
            "key_id": spending.key_id or None,
            "details": {**details, "percent": spent * 100 // budget, **_named(spending)},
        }
        warning = spending.budget_warning_percent
        # A budget is never spent to its last: what might pass it is refused. So it counts as used up when what is left
        # no longer covers a usual request.
        is_reached = spent >= budget or (spent * 100 >= budget * warning and budget - spent < usual_hold_nanos)
        if is_reached:
            yield Finding(kind="budget_reached", **common)
        elif spent * 100 >= budget * (100 - BUDGET_BAND_PERCENT) or budget - spent < HOLDS_TO_CLEAR * usual_hold_nanos:
            yield Finding(kind="budget_reached", is_raised=False, **common)
        if spent * 100 >= budget * (warning - BUDGET_BAND_PERCENT):
            # Whoever went from nothing to all of it is told the latter only.
            is_warned = spent * 100 >= budget * warning and not is_reached
            yield Finding(kind="budget_warning", is_raised=is_warned, **common)


def _named(spending: Spending) -> dict[str, Any]:
    """Return what else is to be told of a budget: whose it is, and that it refuses nothing."""
    named: dict[str, Any] = {spending.scope: spending.spender_label} if spending.scope else {}
    return {**named, "only_notifies": True} if spending.only_notifies else named


def fold_end_users(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield one finding for all end users of an organization, by kind and period, with the figures of the furthest.

    There may be thousands of them, and who is told wants to know it once.
    """
    groups: dict[tuple[int, str, str], list[Finding]] = {}
    for finding in findings:
        period = finding.subject.split(":", 2)[2]
        groups.setdefault((finding.organization_id, finding.kind, period), []).append(finding)
    for (organization_id, kind, period), group in groups.items():
        raised = [finding for finding in group if finding.is_raised]
        furthest = max(raised or group, key=lambda finding: int(finding.details["percent"]))
        details = {**furthest.details, "end_users": len(raised)}
        yield Finding(organization_id, kind, f"end_users:{period}", is_raised=bool(raised), details=details)


def _judge_balance(spending: Spending, usual_hold_nanos: int) -> Iterator[Finding]:
    low, available = low_balance_of(spending), spending.available_nanos
    details = {
        "available_nanos": available,
        "low_balance_nanos": low,
        "is_chosen": spending.low_balance_nanos is not None,
        "usual_day_nanos": _usual_day(spending),
    }
    needed = max(1, usual_hold_nanos)
    is_exhausted = available < needed
    if available < needed * HOLDS_TO_CLEAR:
        yield Finding(spending.organization_id, "balance_exhausted", is_raised=is_exhausted, details=details)
    if low and available * 100 < low * (100 + BALANCE_BAND_PERCENT):
        is_low = available < low and not is_exhausted
        yield Finding(spending.organization_id, "low_balance", is_raised=is_low, details=details)


def _judge_day(spending: Spending, today: int) -> Iterator[Finding]:
    """A day's spend only grows: an unusual one stays so until it is over."""
    if spending.active_days < LEAST_ACTIVE_DAYS or spending.today_nanos < spending.spike_minimum_nanos:
        return
    if spending.today_nanos * 100 * USUAL_DAYS < spending.usual_nanos * spending.spike_percent:
        return
    details = {
        "day": _text_of(today),
        "today_nanos": spending.today_nanos,
        "usual_day_nanos": _usual_day(spending),
        "percent": spending.today_nanos * 100 * USUAL_DAYS // spending.usual_nanos,
    }
    yield Finding(spending.organization_id, "spend_spike", subject=f"day:{today}", details=details)


def _judge_projection(spending: Spending, today: int) -> Iterator[Finding]:
    """What the month will cost if its other days are like those before today."""
    budget = spending.monthly_budget_nanos
    if not budget or spending.month_nanos >= budget or spending.active_days < LEAST_ACTIVE_DAYS:
        return
    first_day = first_day_of_month(today)
    days_left = days_in_month(today) - (today - first_day)  # Today is one of them.
    before_today = spending.month_nanos - spending.today_nanos
    projected = max(before_today + spending.usual_nanos * days_left // USUAL_DAYS, spending.month_nanos)
    if projected * 100 <= budget * (100 - PROJECTION_BAND_PERCENT):
        return
    yield Finding(
        spending.organization_id,
        "projected_over_budget",
        subject=f"month:{first_day}",
        is_raised=projected > budget,
        details={
            "begins": _text_of(first_day),
            "spent_nanos": spending.month_nanos,
            "projected_nanos": projected,
            "budget_nanos": budget,
        },
    )


def _usual_day(spending: Spending) -> int:
    return spending.usual_nanos // USUAL_DAYS


def _text_of(day: int) -> str:
    return date_of(day).isoformat()
