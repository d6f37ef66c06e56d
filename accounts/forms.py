"""What people type about organizations, keys and members. Amounts are typed in US dollars and kept in nano-dollars."""

import ipaddress
from collections.abc import Mapping
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts.models import ApiKey, Organization, Role
from billing.catalog.snapshot import without_client_marks
from billing.models import LanguageModel, LanguageModelAlias
from billing.money import InvalidAmountError, format_usd, parse_usd

MAX_NETWORKS = 50
MAX_MODELS = 100
LIMIT_FIELDS = (
    "requests_per_minute",
    "input_tokens_per_minute",
    "output_tokens_per_minute",
    "concurrent_requests",
)
BUDGET_FIELDS = ("daily_budget_nanos", "weekly_budget_nanos", "monthly_budget_nanos")
MAX_RATE = 10**12  # Per minute; far above any real limit, far below what a bigint or Lua's numbers hold.
MAX_CONCURRENT_REQUESTS = 100_000


class UsdField(forms.CharField):
    """An amount of US dollars, at or above zero; cleans to nano-dollars, or None when left empty."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("widget", forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}))
        super().__init__(**options)

    def to_python(self, value: Any) -> Any:
        text = (value or "").strip().removeprefix("$").replace(",", "")
        if not text:
            return None
        try:
            nanos = parse_usd(text)
        except InvalidAmountError:
            raise ValidationError("Enter an amount in US dollars, for example 25 or 0.50.") from None
        if nanos < 0:
            raise ValidationError("The amount cannot be negative.")
        return nanos

    def prepare_value(self, value: Any) -> Any:
        return format_usd(value) if isinstance(value, int) else value


class LinesField(forms.CharField):
    """One item a line, or separated by commas; cleans to a list without doubles."""

    def __init__(self, *, max_items: int, widget: type[forms.Textarea] = forms.Textarea, **options: Any) -> None:
        self.max_items = max_items
        super().__init__(widget=widget(attrs={"rows": 3, "spellcheck": "false"}), **options)

    def to_python(self, value: Any) -> Any:
        words = (value or "").replace(",", "\n").split()
        return list(dict.fromkeys(words))

    def validate(self, value: list[str]) -> None:
        if len(value) > self.max_items:
            raise ValidationError(f"At most {self.max_items} lines.")

    def run_validators(self, value: Any) -> None:
        pass

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, list) else value


class OrganizationForm(forms.ModelForm[Organization]):
    class Meta:
        model = Organization
        fields = ["name"]
        labels = {"name": "Organization name"}
        widgets = {"name": forms.TextInput(attrs={"autocomplete": "organization", "autofocus": True})}


class OrganizationSettingsForm(forms.ModelForm[Organization]):
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


def model_ids_by_name() -> dict[str, str]:
    """Return the id of every language model on sale by all names that callers may send: its id and its aliases."""
    ids = LanguageModel.objects.filter(is_enabled=True).values_list("model_id", flat=True)
    aliases = LanguageModelAlias.objects.filter(language_model__is_enabled=True)
    return {**dict(aliases.values_list("alias", "language_model__model_id")), **{name: name for name in ids}}


class KeyRestrictions(forms.ModelForm[ApiKey]):
    """Cleans what a key is restricted to. `model_ids` holds the id of each model by the names that may be typed.

    The request path compares ids, so ids are what is kept.
    """

    model_ids: Mapping[str, str]

    def clean_allowed_models(self) -> list[str]:
        kept = {name: name for name in self.instance.allowed_models if name not in self.model_ids}
        known = {**kept, **self.model_ids}
        names: list[str] = self.cleaned_data["allowed_models"]
        typed = [name if name in known else without_client_marks(name) for name in names]
        unknown = [name for name in typed if name not in known]
        if unknown:
            raise ValidationError(f"No such model: {', '.join(unknown[:5])}.")
        return list(dict.fromkeys(known[name] for name in typed))

    def clean_allowed_networks(self) -> list[str]:
        networks = []
        for text in self.cleaned_data["allowed_networks"]:
            try:
                networks.append(str(ipaddress.ip_network(text)))
            except ValueError as error:
                raise ValidationError(f"{text} is no network: {error}.") from None
        return networks


class KeyForm(KeyRestrictions):
    """Name, limits and restrictions of a key."""

    daily_budget_nanos = UsdField(required=False, label="Daily budget")
    weekly_budget_nanos = UsdField(required=False, label="Weekly budget")
    monthly_budget_nanos = UsdField(required=False, label="Monthly budget")
    requests_per_minute = forms.IntegerField(
        required=False, min_value=1, max_value=2**31 - 1, label="Requests per minute"
    )
    input_tokens_per_minute = forms.IntegerField(
        required=False, min_value=1, max_value=MAX_RATE, label="Input tokens per minute"
    )
    output_tokens_per_minute = forms.IntegerField(
        required=False, min_value=1, max_value=MAX_RATE, label="Output tokens per minute"
    )
    concurrent_requests = forms.IntegerField(
        required=False, min_value=1, max_value=MAX_CONCURRENT_REQUESTS, label="Concurrent requests"
    )
    expires_at = forms.DateTimeField(
        required=False,
        label="Expires (UTC)",
        input_formats=["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"],
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format="%Y-%m-%dT%H:%M"),
    )
    allowed_models = LinesField(max_items=MAX_MODELS, required=False, label="Allowed models")
    allowed_networks = LinesField(max_items=MAX_NETWORKS, required=False, label="Allowed networks")

    class Meta:
        model = ApiKey
        fields = ["name", *LIMIT_FIELDS, *BUDGET_FIELDS, "expires_at", "allowed_models", "allowed_networks"]
        widgets = {"name": forms.TextInput(attrs={"autocomplete": "off", "placeholder": "Production backend"})}

    def __init__(self, *args: Any, model_ids: Mapping[str, str], **options: Any) -> None:
        super().__init__(*args, **options)
        self.model_ids = model_ids
        for field in LIMIT_FIELDS:
            self.fields[field].widget.attrs["placeholder"] = "No limit"
        for field in BUDGET_FIELDS:
            self.fields[field].widget.attrs["placeholder"] = "No budget"

    def clean_expires_at(self) -> Any:
        moment = self.cleaned_data["expires_at"]
        if moment is not None and moment <= timezone.now() and "expires_at" in self.changed_data:
            raise ValidationError("This moment has passed. To end a key at once, revoke it.")
        return moment

    @property
    def limits_and_restrictions(self) -> dict[str, Any]:
        """The cleaned fields but the name, as accounts.keys takes them."""
        return {name: value for name, value in self.cleaned_data.items() if name in self.fields and name != "name"}

    @property
    def is_advanced_open(self) -> bool:
        """Whether anything but the name is set or wrong, so that it must be seen."""
        return any(self[name].errors or self[name].value() for name in self.fields if name != "name")


class InvitationForm(forms.Form):
    """Invites an address, whether or not it has an account."""

    email = forms.EmailField(label="E-mail address", widget=forms.EmailInput(attrs={"autocomplete": "off"}))
    role = forms.ChoiceField(label="Role")

    def __init__(self, *args: Any, roles: list[Role], **options: Any) -> None:
        super().__init__(*args, **options)
        role = self.fields["role"]
        assert isinstance(role, forms.ChoiceField)  # noqa: S101  told to the type checker
        role.choices = [(role.value, role.label) for role in roles]
        self.initial.setdefault("role", Role.DEVELOPER)


class RoleForm(forms.Form):
    role = forms.ChoiceField(label="Role")

    def __init__(self, *args: Any, roles: list[Role], **options: Any) -> None:
        super().__init__(*args, **options)
        role = self.fields["role"]
        assert isinstance(role, forms.ChoiceField)  # noqa: S101  told to the type checker
        role.choices = [(role.value, role.label) for role in roles]
