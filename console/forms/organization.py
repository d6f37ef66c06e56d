"""What people type about an organization: its name and its budgets."""

from typing import Any

from django import forms

from accounts.billing_details import DETAIL_FIELDS
from accounts.countries import country_choices
from accounts.models import BillingDetails, Organization
from billing.privacy.retention import MAX_DAYS, MIN_DAYS
from pages.fields import LongSelect, UsdField
from pages.forms import Form, ModelForm
from pages.key_restrictions import BUDGET_FIELDS


class OrganizationForm(ModelForm[Organization]):
    class Meta:
        model = Organization
        fields = ["name"]
        labels = {"name": "Organization name"}
        widgets = {"name": forms.TextInput(attrs={"autocomplete": "organization", "autofocus": True})}


class OrganizationSettingsForm(ModelForm[Organization]):
    """What members who manage the organization may change of it."""

    daily_budget_nanos = UsdField(required=False, label="Daily budget")
    weekly_budget_nanos = UsdField(required=False, label="Weekly budget")
    monthly_budget_nanos = UsdField(required=False, label="Monthly budget")

    class Meta:
        model = Organization
        fields = ["name", *BUDGET_FIELDS, "shows_cost_in_usage"]
        labels = {"name": "Organization name"}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for field in BUDGET_FIELDS:
            self.fields[field].widget.attrs["placeholder"] = "No budget"


class AddressForm(Form):
    """The word for the organization in addresses. What was typed in capitals is taken in small letters."""

    slug = forms.RegexField(
        r"^[a-z0-9][a-z0-9-]*[a-z0-9]$",
        label="Address",
        strip=True,
        max_length=50,
        help_text="Small letters, digits and hyphens.",
        error_messages={"invalid": "Use small letters, digits and hyphens: two at least, a hyphen only in between."},
        widget=forms.TextInput(attrs={"autocomplete": "off", "autocapitalize": "none", "spellcheck": "false"}),
    )

    def __init__(self, data: Any = None, **options: Any) -> None:
        typed = str(data.get("slug", "")).lower() if data is not None else ""
        super().__init__(None if data is None else {"slug": typed}, **options)


class ClosingForm(Form):
    """The name of the organization, typed by whoever closes it."""

    name = forms.CharField(
        label="Type its name to close it", max_length=100, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )


class DeletionForm(Form):
    """The name of the organization, and that what is left of its balance is given up."""

    name = forms.CharField(
        label="Type its name to have it deleted", max_length=100, widget=forms.TextInput(attrs={"autocomplete": "off"})
    )
    gives_up_balance = forms.BooleanField(required=False)

    def __init__(self, *args: Any, has_balance: bool, **options: Any) -> None:
        super().__init__(*args, **options)
        self.has_balance = has_balance

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        if self.has_balance and not cleaned.get("gives_up_balance"):
            self.add_error("gives_up_balance", "Ask the operator to pay it out first, or tick the box.")
        return cleaned


class RetentionForm(Form):
    """For how many days details of requests are kept; without a number they stay. Less needs a word more."""

    details_days = forms.IntegerField(
        required=False,
        min_value=MIN_DAYS,
        max_value=MAX_DAYS,
        label="Keep details of requests for, in days",
        widget=forms.NumberInput(attrs={"placeholder": "As long as the organization exists"}),
    )
    is_certain = forms.BooleanField(required=False)

    def __init__(self, *args: Any, kept_days: int | None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.initial["details_days"] = kept_days
        self.kept_days = kept_days

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or self.cleaned_data
        days = cleaned.get("details_days")
        is_less = days is not None and (self.kept_days is None or days < self.kept_days)
        if is_less and not cleaned.get("is_certain"):
            self.add_error("is_certain", "This erases details for good: tick the box to say that you want it.")
        return cleaned


class BillingDetailsForm(ModelForm[BillingDetails]):
    """Whom documents are made out to. All of it may stay empty."""

    class Meta:
        model = BillingDetails
        fields = list(DETAIL_FIELDS)
        labels = {
            "legal_name": "Name on documents",
            "address_line_1": "Address",
            "address_line_2": "Address, second line",
            "region": "State or region",
            "tax_id": "Tax id",
        }
        help_texts = {"tax_id": "Such as a VAT number."}
        widgets = {
            "legal_name": forms.TextInput(attrs={"autocomplete": "organization"}),
            "address_line_1": forms.TextInput(attrs={"autocomplete": "address-line1"}),
            "address_line_2": forms.TextInput(attrs={"autocomplete": "address-line2"}),
            "postal_code": forms.TextInput(attrs={"autocomplete": "postal-code"}),
            "city": forms.TextInput(attrs={"autocomplete": "address-level2"}),
        }

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        kept = self.instance.country
        choices = [("", "None"), *country_choices()]
        if kept and kept not in dict(choices):
            choices.append((kept, kept))
        self.fields["country"] = forms.ChoiceField(
            required=False, choices=choices, widget=LongSelect(attrs={"autocomplete": "country"})
        )

    def clean_tax_id(self) -> str:
        """Written without spaces, as registers keep it."""
        return "".join(str(self.cleaned_data["tax_id"]).split()).upper()
