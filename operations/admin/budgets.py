"""Budgets, as the forms of organizations and keys share them."""

from typing import Any

from operations.admin.base import (
    admin_usd_field,
)
from pages.forms import ModelForm


class BudgetForm(ModelForm[Any]):
    """Budgets typed in US dollars."""

    daily_budget_nanos = admin_usd_field("Daily budget, USD")
    weekly_budget_nanos = admin_usd_field("Weekly budget, USD")
    monthly_budget_nanos = admin_usd_field("Monthly budget, USD")

    @property
    def changed_values(self) -> dict[str, Any]:
        """What was typed again, as the domain modules take it."""
        return {name: self.cleaned_data[name] for name in self.changed_data if name in self.fields}
