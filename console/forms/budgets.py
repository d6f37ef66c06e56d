"""What people type about budgets: amounts, whether they refuse or only notify, and overrides."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from billing.budgets.amounts import Amounts
from billing.budgets.overrides import MAX_REASON_CHARS
from billing.usage_event import MAX_END_USER_CHARS
from pages.fields import UsdField
from pages.forms import Form

REFUSE, NOTIFY = "refuse", "notify"
EFFECTS = ((REFUSE, "Refuse requests that could pass the budget"), (NOTIFY, "Only notify: let them through"))


class AmountsForm(Form):
    """Amounts by period."""

    daily_budget_nanos = UsdField(required=False, label="Daily budget")
    weekly_budget_nanos = UsdField(required=False, label="Weekly budget")
    monthly_budget_nanos = UsdField(required=False, label="Monthly budget")

    placeholder = "No budget"

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name in ("daily_budget_nanos", "weekly_budget_nanos", "monthly_budget_nanos"):
            self.fields[name].widget.attrs["placeholder"] = self.placeholder

    @property
    def amounts(self) -> Amounts:
        values = self.cleaned_data
        return Amounts(values["daily_budget_nanos"], values["weekly_budget_nanos"], values["monthly_budget_nanos"])


class BudgetForm(AmountsForm):
    effect = forms.ChoiceField(label="When a budget is used up", choices=EFFECTS, widget=forms.RadioSelect)

    @property
    def only_notifies(self) -> bool:
        return bool(self.cleaned_data["effect"] == NOTIFY)


class EndUserBudgetForm(BudgetForm):
    end_user = forms.CharField(
        label="End user",
        max_length=MAX_END_USER_CHARS,
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "user-1234"}),
    )

    field_order = ("end_user", "daily_budget_nanos", "weekly_budget_nanos", "monthly_budget_nanos", "effect")


class OverrideForm(AmountsForm):
    placeholder = "As before"

    until = forms.DateTimeField(
        label="Until (UTC)",
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    reason = forms.CharField(
        label="Why", max_length=MAX_REASON_CHARS, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )

    def clean(self) -> dict[str, Any]:
        values = super().clean() or {}
        names = ("daily_budget_nanos", "weekly_budget_nanos", "monthly_budget_nanos")
        if not self.errors and all(values.get(name) is None for name in names):
            raise ValidationError("Set an amount for at least one of day, week and month.")
        return values
