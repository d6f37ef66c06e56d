"""What people type about alerts and webhooks."""

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from billing.models import Alert, AlertSettings, WebhookEndpoint
from billing.money import NANOS_PER_USD
from billing.webhooks.endpoints import InvalidUrlError, check_url
from pages.fields import UsdField
from pages.forms import ModelForm

MAX_LOW_BALANCE_NANOS = 10_000_000 * NANOS_PER_USD
MIN_SPIKE_PERCENT, MAX_SPIKE_PERCENT = 110, 10_000


def kind_choices() -> list[tuple[str, str]]:
    return [(kind.value, kind.label) for kind in Alert.Kind]


class AlertSettingsForm(ModelForm[AlertSettings]):
    low_balance_nanos = UsdField(required=False, label="Low balance, below")
    budget_warning_percent = forms.IntegerField(label="Budget warning, at percent", min_value=1, max_value=99)
    spike_percent = forms.IntegerField(
        label="Unusual day, at percent of a usual one", min_value=MIN_SPIKE_PERCENT, max_value=MAX_SPIKE_PERCENT
    )
    spike_minimum_nanos = UsdField(label="Never unusual, below")
    told_kinds = forms.MultipleChoiceField(
        label="Told of", required=False, choices=kind_choices, widget=forms.CheckboxSelectMultiple
    )

    class Meta:
        model = AlertSettings
        fields = [
            "low_balance_nanos",
            "budget_warning_percent",
            "spike_percent",
            "spike_minimum_nanos",
            "mails_owners",
            "mails_admins",
            "mails_billing",
            "mails_key_makers",
        ]
        labels = {
            "mails_owners": "Owners",
            "mails_admins": "Admins",
            "mails_billing": "Billing",
            "mails_key_makers": "The owner of the key, if it is about a key",
        }

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        muted = set(self.instance.muted_kinds)
        self.initial["told_kinds"] = [kind for kind, _ in kind_choices() if kind not in muted]
        self.fields["low_balance_nanos"].widget.attrs["placeholder"] = "Three usual days"

    def clean_low_balance_nanos(self) -> int | None:
        nanos: int | None = self.cleaned_data["low_balance_nanos"]
        if nanos is not None and nanos > MAX_LOW_BALANCE_NANOS:
            raise ValidationError("That is more than any balance here can be.")
        return nanos

    def clean_spike_minimum_nanos(self) -> int | None:
        nanos: int | None = self.cleaned_data["spike_minimum_nanos"]
        if nanos is not None and nanos > MAX_LOW_BALANCE_NANOS:
            raise ValidationError("No day costs that much.")
        return nanos

    @property
    def chosen(self) -> dict[str, Any]:
        """What was typed, as billing.alerts.choices takes it."""
        values = dict(self.cleaned_data)
        told = set(values.pop("told_kinds"))
        return {**values, "muted_kinds": [kind for kind, _ in kind_choices() if kind not in told]}


class WebhookForm(ModelForm[WebhookEndpoint]):
    kinds = forms.MultipleChoiceField(
        label="Kinds of alerts", required=False, choices=kind_choices, widget=forms.CheckboxSelectMultiple
    )

    class Meta:
        model = WebhookEndpoint
        fields = ["url", "description", "kinds"]
        labels = {"url": "URL", "description": "Description"}
        widgets = {
            "url": forms.TextInput(attrs={"inputmode": "url", "autocomplete": "off", "spellcheck": "false"}),
            "description": forms.TextInput(attrs={"placeholder": "What it is for"}),
        }

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.initial["kinds"] = self.instance.kinds or [kind for kind, _ in kind_choices()]

    def clean_url(self) -> str:
        try:
            return check_url(self.cleaned_data["url"])
        except InvalidUrlError as error:
            raise ValidationError(str(error)) from None

    def clean_kinds(self) -> list[str]:
        """All of them are kept as none, which also means those that are still to come."""
        kinds: list[str] = self.cleaned_data["kinds"]
        if not kinds:
            raise ValidationError("Choose at least one kind.")
        return [] if len(kinds) == len(kind_choices()) else kinds
