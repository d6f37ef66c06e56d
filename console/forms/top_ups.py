"""What people type to pay. A top-up form carries a key that is used once, so that a double click is one order."""

import secrets
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from billing.payments.automatic_settings import MAX_DAY_COUNT, MAX_MONTH_COUNT, Choice
from billing.payments.orders import MAX_KEY_CHARACTERS, Bounds
from pages.fields import UsdField
from pages.forms import Form

KEY_BYTES = 18


MAX_THRESHOLD_NANOS = 10**15  # 1,000,000 USD.


class TopUpForm(Form):
    amount_nanos = UsdField(label="Amount (USD)")
    key = forms.CharField(max_length=MAX_KEY_CHARACTERS, widget=forms.HiddenInput)

    def __init__(self, *arguments: Any, bounds: Bounds, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.bounds = bounds
        self.initial.setdefault("key", secrets.token_urlsafe(KEY_BYTES))

    def clean_amount_nanos(self) -> int:
        nanos: int = self.cleaned_data["amount_nanos"]
        if not self.bounds.min_nanos <= nanos <= self.bounds.max_nanos:
            raise ValidationError(f"A top-up is {self.bounds}.")
        return nanos


class AutomaticTopUpForm(Form):
    """Off unless it is ticked here; no other form changes it."""

    is_on = forms.BooleanField(required=False, label="Top up automatically")
    threshold_nanos = UsdField(label="When the balance is below (USD)")
    amount_nanos = UsdField(label="Add (USD)")
    max_day_nanos = UsdField(label="At most in a day (USD)")
    max_day_count = forms.IntegerField(min_value=1, max_value=MAX_DAY_COUNT, label="Top-ups in a day")
    max_month_nanos = UsdField(label="At most in a month (USD)")
    max_month_count = forms.IntegerField(min_value=1, max_value=MAX_MONTH_COUNT, label="Top-ups in a month")

    def clean_threshold_nanos(self) -> int:
        nanos: int = self.cleaned_data["threshold_nanos"]
        if nanos > MAX_THRESHOLD_NANOS:
            raise ValidationError("That is too much.")
        return nanos

    def clean(self) -> dict[str, Any]:
        values: dict[str, Any] = super().clean() or self.cleaned_data
        for name in ("max_day_nanos", "max_month_nanos"):
            if values.get(name, 0) > MAX_THRESHOLD_NANOS:
                self.add_error(name, "That is too much.")
        return values

    def choice(self) -> Choice:
        return Choice(**self.cleaned_data)
