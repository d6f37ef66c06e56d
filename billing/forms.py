"""What people choose on the usage page, and the code that they redeem."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from accounts.models import ApiKey
from billing.redemption import MAX_TYPED_CHARACTERS
from billing.usage_report import MAX_RANGE_DAYS, UsageFilter

DEFAULT_RANGE_DAYS = 30
OUTCOMES = [("", "All"), ("billed", "Billed"), ("failed", "Failed")]


class UsageFilterForm(forms.Form):
    """Everything may be left empty: then it is the last DEFAULT_RANGE_DAYS days, all keys, all models."""

    first_day = forms.DateField(required=False, label="From", widget=forms.DateInput(attrs={"type": "date"}))
    last_day = forms.DateField(required=False, label="To", widget=forms.DateInput(attrs={"type": "date"}))
    key = forms.TypedChoiceField(required=False, coerce=int, empty_value=None, label="Key")
    model = forms.ChoiceField(required=False, label="Model")
    outcome = forms.ChoiceField(required=False, choices=OUTCOMES, label="Outcome")

    def __init__(self, *args: Any, keys: list[ApiKey], model_ids: list[str], **options: Any) -> None:
        super().__init__(*args, **options)
        for name, choices in (
            ("key", [("", "All keys"), *((str(key.pk), _name_of(key)) for key in keys)]),
            ("model", [("", "All models"), *((model_id, model_id) for model_id in model_ids)]),
        ):
            field = self.fields[name]
            assert isinstance(field, forms.ChoiceField)  # noqa: S101  told to the type checker
            field.choices = choices

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if self.errors:
            return cleaned
        today = datetime.now(UTC).date()
        last_day: date = cleaned["last_day"] or max(today, cleaned["first_day"] or today)
        first_day: date = cleaned["first_day"] or last_day - timedelta(days=DEFAULT_RANGE_DAYS - 1)
        if first_day > last_day:
            raise ValidationError("The first day lies after the last one.")
        if last_day - first_day >= timedelta(days=MAX_RANGE_DAYS):
            raise ValidationError(f"Choose at most {MAX_RANGE_DAYS} days.")
        if not 2000 <= first_day.year <= last_day.year < 2200:
            raise ValidationError("Choose days of this century.")
        return {**cleaned, "first_day": first_day, "last_day": last_day}

    @property
    def usage_filter(self) -> UsageFilter:
        """The filter of a valid form."""
        return UsageFilter(
            first_day=self.cleaned_data["first_day"],
            last_day=self.cleaned_data["last_day"],
            key_id=self.cleaned_data["key"],
            model_id=self.cleaned_data["model"],
            outcome=self.cleaned_data["outcome"],
        )


class RedeemForm(forms.Form):
    code = forms.CharField(
        max_length=MAX_TYPED_CHARACTERS,
        label="Redemption code",
        widget=forms.TextInput(
            attrs={"autocomplete": "off", "spellcheck": "false", "placeholder": "XXXXX-XXXXX-XXXXX-XXXXX"}
        ),
    )


def default_filter() -> UsageFilter:
    today = datetime.now(UTC).date()
    return UsageFilter(first_day=today - timedelta(days=DEFAULT_RANGE_DAYS - 1), last_day=today)


def _name_of(key: ApiKey) -> str:
    return f"{key.name} (…{key.last_four})" + (" · revoked" if key.is_revoked else "")
