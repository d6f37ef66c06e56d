"""What people type about keys: name, limits, budgets and restrictions."""

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone

from accounts.key_search import MAX_TEXT_CHARS, KeyState
from accounts.models import ApiKey, Role, User
from pages.fields import LinesField, UsdField
from pages.forms import Form, ModelForm
from pages.key_restrictions import BUDGET_FIELDS, LIMIT_FIELDS, MAX_MODELS, MAX_NETWORKS, KeyRestrictions

MAX_RATE = 10**12  # Per minute; far above any real limit, far below what a bigint or Lua's numbers hold.
MAX_CONCURRENT_REQUESTS = 100_000
WHOSE = ("name", "owner")
MOMENT_FORMATS = ["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%d"]


STATES = [
    (KeyState.LIVE, "All but revoked"),
    (KeyState.ACTIVE, "Active"),
    (KeyState.DISABLED, "Disabled"),
    (KeyState.EXPIRED, "Expired"),
    (KeyState.REVOKED, "Revoked"),
]
OVERLAPS = [("0", "Not at all"), ("1", "1 hour"), ("24", "1 day"), ("168", "7 days"), ("720", "30 days")]


class KeySearchForm(Form):
    """What is looked for among keys. What makes no sense is taken for nothing."""

    q = forms.CharField(
        required=False,
        label="Search",
        max_length=MAX_TEXT_CHARS,
        widget=forms.TextInput(attrs={"type": "search", "placeholder": "Name, owner, cm-…, last four"}),
    )
    state = forms.ChoiceField(required=False, label="State", choices=STATES)

    @property
    def is_filtered(self) -> bool:
        return any(self.data.get(name) for name in ("q", "state"))


class RotationForm(Form):
    """How long the secret that a key has now goes on working, in hours."""

    overlap = forms.ChoiceField(label="The old secret goes on working for", choices=OVERLAPS, initial="24")


class KeyForm(KeyRestrictions):
    """Name, owner, limits and restrictions of a key. Without `owners` it is its maker's."""

    owner = forms.TypedChoiceField(label="Owner", coerce=int, required=False, empty_value=None)

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
        input_formats=MOMENT_FORMATS,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MOMENT_FORMATS[0]),
    )
    allowed_models = LinesField(max_items=MAX_MODELS, required=False, label="Allowed models")
    allowed_networks = LinesField(max_items=MAX_NETWORKS, required=False, label="Allowed networks")

    class Meta:
        model = ApiKey
        fields = ["name", *LIMIT_FIELDS, *BUDGET_FIELDS, "expires_at", "allowed_models", "allowed_networks"]
        widgets = {"name": forms.TextInput(attrs={"autocomplete": "off", "placeholder": "Production backend"})}

    def __init__(
        self, *args: Any, model_ids: Mapping[str, str], owners: Mapping[int, User] | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.model_ids = model_ids
        self.owners = owners
        if owners is None:
            del self.fields["owner"]
        else:
            owner = self.fields["owner"]
            assert isinstance(owner, forms.TypedChoiceField)  # noqa: S101  told to the type checker
            nobody = [("", "Nobody")] if self.instance.pk else []
            owner.choices = [*nobody, *((pk, user.email) for pk, user in owners.items())]
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
        """The cleaned fields but name and owner, as accounts.keys takes them."""
        return {name: value for name, value in self.cleaned_data.items() if name in self.fields and name not in WHOSE}

    @property
    def chosen_owner(self) -> User | None:
        """Whose key it shall be; None where that was not asked, or is nobody."""
        return self.owners.get(self.cleaned_data.get("owner") or 0) if self.owners else None

    @property
    def is_advanced_open(self) -> bool:
        """Whether anything but the name is set or wrong, so that it must be seen."""
        return any(self[name].errors or self[name].value() for name in self.fields if name not in WHOSE)


class ManagementKeyForm(ModelForm[ApiKey]):
    """A management key has a name, a role and an end, and nothing to limit: it spends nothing."""

    role = forms.ChoiceField(label="Role")
    expires_at = forms.DateTimeField(
        required=False,
        label="Expires (UTC)",
        input_formats=MOMENT_FORMATS,
        widget=forms.DateTimeInput(attrs={"type": "datetime-local"}, format=MOMENT_FORMATS[0]),
    )

    class Meta:
        model = ApiKey
        fields = ["name", "expires_at"]
        widgets = {"name": forms.TextInput(attrs={"autocomplete": "off", "placeholder": "Terraform"})}

    def __init__(self, *args: Any, roles: Sequence[Role], **options: Any) -> None:
        super().__init__(*args, **options)
        role = self.fields["role"]
        assert isinstance(role, forms.ChoiceField)  # noqa: S101  told to the type checker
        role.choices = [(role.value, role.label) for role in roles]
        self.initial.setdefault("role", Role.VIEWER)

    def clean_expires_at(self) -> Any:
        moment = self.cleaned_data["expires_at"]
        if moment is not None and moment <= timezone.now():
            raise ValidationError("This moment has passed.")
        return moment
