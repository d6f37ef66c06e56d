"""Budgets in bodies and answers, whosever they are: of the organization, of keys, members and end users."""

from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from api.fields import AmountField, Body, SwitchField, UsdField
from billing.budgets.amounts import Amounts, HasAmounts
from billing.models import BudgetOverride
from billing.money import format_usd
from billing.usage.budgets import Spent

PERIODS = ("daily", "weekly", "monthly")


class AmountsBody(Body):
    """The most that may be spent in a UTC day, a week from Monday, a month from the first. null: no budget."""

    daily = UsdField(allow_null=True, required=False)
    weekly = UsdField(allow_null=True, required=False)
    monthly = UsdField(allow_null=True, required=False)


class BudgetsBody(AmountsBody):
    only_notifies = SwitchField(required=False, help_text="Refuse nothing, and let alerts tell. false unless told.")


class OverrideShown(serializers.Serializer[Any]):
    daily = AmountField(allow_null=True, help_text="null: the budget of this period holds on.")
    weekly = AmountField(allow_null=True)
    monthly = AmountField(allow_null=True)
    until = serializers.DateTimeField()
    reason = serializers.CharField()
    made_by = serializers.CharField()
    made_at = serializers.DateTimeField()


class BudgetShown(serializers.Serializer[Any]):
    limit = AmountField(allow_null=True, help_text="As it was set.")
    in_force = AmountField(allow_null=True, help_text="What holds now: limit, or what overrides it.")
    spent = AmountField(allow_null=True, help_text="Of settled requests. null for a default: it is of nobody.")
    remaining = AmountField(allow_null=True, help_text="in_force less spent, and never below zero.")


class BudgetsShown(serializers.Serializer[Any]):
    daily = BudgetShown()
    weekly = BudgetShown(help_text="From Monday.")
    monthly = BudgetShown(help_text="From the first.")
    only_notifies = serializers.BooleanField()
    override = OverrideShown(allow_null=True)


def amounts_of(body: Mapping[str, Any]) -> Amounts:
    """Return what a body sets; a period that is left out has none."""
    return Amounts(*(body.get(period) for period in PERIODS))


def budget_fields(budgets: Mapping[str, Any], *, is_whole: bool) -> dict[str, Any]:
    """Return the columns of budgets as they were sent; where all are to be set, those left out are none."""
    fields = {f"{period}_budget_nanos": budgets.get(period) for period in PERIODS if is_whole or period in budgets}
    if is_whole or "only_notifies" in budgets:
        fields["budgets_only_notify"] = budgets.get("only_notifies", False)
    return fields


def nanos_of(spent: Spent) -> tuple[int, int, int]:
    """Return what budgets of a day, a week and a month compare."""
    return spent.daily_nanos, spent.weekly_nanos, spent.monthly_nanos


def show_budgets(
    holder: Any, spent: tuple[int, int, int] | None, override: BudgetOverride | None = None
) -> dict[str, Any]:
    """Return the budgets of a row that has some, and how much of each is spent; None: of nobody."""
    shown: dict[str, Any] = {}
    limits = Amounts.of(holder)
    for number, (period, limit, in_force) in enumerate(zip(PERIODS, limits, _in_force(holder, override), strict=True)):
        used = None if spent is None else spent[number]
        shown[period] = {
            "limit": _usd(limit),
            "in_force": _usd(in_force),
            "spent": _usd(used),
            "remaining": None if in_force is None or used is None else format_usd(max(0, in_force - used)),
        }
    return {
        **shown,
        "only_notifies": holder.budgets_only_notify,
        "override": None if override is None else show_override(override),
    }


def show_tightest(
    holder: HasAmounts, spent: tuple[int, int, int], override: BudgetOverride | None
) -> dict[str, str | None]:
    """Return the budget in force with the least left, by OpenRouter's names."""
    budgets = [
        (max(0, limit - used), limit, period)
        for period, limit, used in zip(PERIODS, _in_force(holder, override), spent, strict=True)
        if limit is not None
    ]
    left, limit, period = min(budgets) if budgets else (None, None, None)
    return {"limit": _usd(limit), "limit_remaining": _usd(left), "limit_reset": period}


def show_override(override: BudgetOverride) -> dict[str, Any]:
    amounts = zip(PERIODS, Amounts.of(override), strict=True)
    return {
        **{period: _usd(nanos) for period, nanos in amounts},
        "until": override.until,
        "reason": override.reason,
        "made_by": override.made_by,
        "made_at": override.made_at,
    }


def _in_force(holder: HasAmounts, override: BudgetOverride | None) -> Amounts:
    limits = Amounts.of(holder)
    return limits if override is None else limits.with_others(Amounts.of(override))


def _usd(nanos: int | None) -> str | None:
    return None if nanos is None else format_usd(nanos)
