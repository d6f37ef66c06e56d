"""What an organization looks at first: what was spent against its budgets, and how many requests went wrong."""

from dataclasses import dataclass
from datetime import date, timedelta

from django.db.models import Sum

from accounts.models import Organization
from billing.budgets.amounts import Amounts, Holder
from billing.budgets.overrides import Scope, find_override
from billing.days import ORDINAL_OF_EPOCH, days_in_month, first_day_of_month, first_day_of_week
from billing.models import BudgetOverride, FailedDay, RefusedDay
from billing.read_replica import read
from billing.usage.budgets import posted_nanos_by_day
from billing.usage.sums import Sums, UsageFilter, sum_period

USUAL_DAYS = 8  # What a day usually costs is told by so many days before today, as for alerts.
LEAST_ACTIVE_DAYS = 3  # With fewer of them no month is projected.


@dataclass(frozen=True, slots=True)
class MonthSpending:
    """Spend of settled requests, as budgets count it, in nano-dollars, and the budgets in force; None is not set.

    `override` stands now for the organization: it made those of these budgets for which it has an amount.
    """

    today_nanos: int
    week_nanos: int
    month_nanos: int
    projected_nanos: int | None
    daily_budget_nanos: int | None
    weekly_budget_nanos: int | None
    monthly_budget_nanos: int | None
    only_notifies: bool = False
    override: BudgetOverride | None = None

    @property
    def daily_override(self) -> BudgetOverride | None:
        return self.override if self.override and self.override.daily_budget_nanos is not None else None

    @property
    def weekly_override(self) -> BudgetOverride | None:
        return self.override if self.override and self.override.weekly_budget_nanos is not None else None

    @property
    def monthly_override(self) -> BudgetOverride | None:
        return self.override if self.override and self.override.monthly_budget_nanos is not None else None

    @property
    def daily_percent(self) -> int | None:
        return _percent(self.today_nanos, self.daily_budget_nanos)

    @property
    def weekly_percent(self) -> int | None:
        return _percent(self.week_nanos, self.weekly_budget_nanos)

    @property
    def monthly_percent(self) -> int | None:
        return _percent(self.month_nanos, self.monthly_budget_nanos)

    @property
    def is_projected_over_budget(self) -> bool:
        budget = self.monthly_budget_nanos
        return budget is not None and self.projected_nanos is not None and self.projected_nanos > budget


@dataclass(frozen=True, slots=True)
class Activity:
    """A period in numbers: what was billed, and how many requests failed or were refused beside that."""

    sums: Sums
    failed: int
    refused: int

    @property
    def asked(self) -> int:
        return self.sums.requests + self.failed + self.refused

    @property
    def error_permille(self) -> int | None:
        """Of the requests that were admitted, how many no upstream served."""
        admitted = self.sums.requests + self.failed
        return self.failed * 1000 // admitted if admitted else None

    @property
    def refusal_permille(self) -> int | None:
        """Of all requests, how many were refused before anything was held."""
        return self.refused * 1000 // self.asked if self.asked else None


def read_month(organization: Organization, today: date) -> MonthSpending:
    """Return the spend of today and of the month, and what the month will cost if it goes on like the days before."""
    day = today.toordinal() - ORDINAL_OF_EPOCH
    first = first_day_of_month(day)
    posted = posted_nanos_by_day(organization_id=organization.pk, first_day=min(first, day - USUAL_DAYS))
    today_nanos = posted.get(day, 0)
    week_nanos = sum(nanos for number, nanos in posted.items() if number >= first_day_of_week(day))
    month_nanos = sum(nanos for number, nanos in posted.items() if number >= first)
    usual = [posted.get(number, 0) for number in range(day - USUAL_DAYS, day)]
    projected = None
    if sum(1 for nanos in usual if nanos) >= LEAST_ACTIVE_DAYS:
        days_left = days_in_month(day) - (day - first)  # Today is one of them.
        projected = max(month_nanos - today_nanos + sum(usual) * days_left // USUAL_DAYS, month_nanos)
    override = find_override(organization.pk, Holder(Scope.ORGANIZATION))
    budgets = Amounts.of(organization)
    return MonthSpending(
        today_nanos,
        week_nanos,
        month_nanos,
        projected,
        *(budgets.with_others(Amounts.of(override)) if override else budgets),
        organization.budgets_only_notify,
        override,
    )


def read_activity(organization: Organization, *, last_day: date, days: int) -> Activity:
    """Return what happened in the `days` days up to `last_day`."""
    first_day = last_day - timedelta(days=days - 1)
    failed = read(FailedDay).filter(
        organization_id=organization.pk,
        admitted_day__gte=first_day.toordinal() - ORDINAL_OF_EPOCH,
        admitted_day__lte=last_day.toordinal() - ORDINAL_OF_EPOCH,
    )
    refused = read(RefusedDay).filter(organization_id=organization.pk, day__gte=first_day, day__lte=last_day)
    return Activity(
        sum_period(organization, UsageFilter(first_day, last_day)),
        failed.aggregate(n=Sum("requests", default=0))["n"],
        refused.aggregate(n=Sum("requests", default=0))["n"],
    )


def _percent(nanos: int, budget_nanos: int | None) -> int | None:
    """Of a budget of nothing, all is used."""
    if budget_nanos is None:
        return None
    return nanos * 100 // budget_nanos if budget_nanos else 100
