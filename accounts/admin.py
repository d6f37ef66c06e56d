"""Operators' pages about people, organizations, keys and the change feed."""

import uuid
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from accounts.admin_base import (
    OperatorAdmin,
    OperatorInline,
    QuestionForm,
    ReadOnlyAdmin,
    admin_usd_field,
    detail_action,
    is_superuser,
    operator_form,
)
from accounts.forms import (
    BUDGET_FIELDS,
    LIMIT_FIELDS,
    MAX_MODELS,
    MAX_NETWORKS,
    KeyRestrictions,
    LinesField,
    model_ids_by_name,
)
from accounts.invitations import has_confirmed
from accounts.keys import KeyAlreadyRevokedError, change_key, revoke_key
from accounts.models import AdmissionChange, ApiKey, Member, Organization, User
from accounts.organizations import change_organization, create_organization
from accounts.views.publishing import publish_or_tell
from billing.ledger import IdempotencyConflictError
from billing.models import CreditLot
from billing.money import format_usd
from billing.top_ups import InvalidTopUpError, grant_credit
from billing.usage_report import start_of_day

admin.site.unregister(Group)


class BudgetForm(forms.ModelForm[Any]):
    """Budgets typed in US dollars."""

    daily_budget_nanos = admin_usd_field("Daily budget, USD")
    weekly_budget_nanos = admin_usd_field("Weekly budget, USD")
    monthly_budget_nanos = admin_usd_field("Monthly budget, USD")

    @property
    def changed_values(self) -> dict[str, Any]:
        """What was typed anew, as the domain modules take it."""
        return {name: self.cleaned_data[name] for name in self.changed_data if name in self.fields}


class OrganizationAdminForm(BudgetForm):
    credit_limit_nanos = admin_usd_field("Credit limit, USD")

    def clean_credit_limit_nanos(self) -> int:
        return self.cleaned_data["credit_limit_nanos"] or 0


class GrantCreditForm(forms.Form):
    """The reason is required: it stands in the ledger and in the organization's statement."""

    amount_nanos = admin_usd_field("Amount, USD", required=True)
    kind = forms.ChoiceField(choices=CreditLot.Kind.choices, widget=UnfoldAdminSelectWidget)
    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Members see it.")
    expires_on = forms.DateField(
        required=False,
        label="Expires",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="At the beginning of this day, UTC. Empty: never.",
    )
    # Sent twice, the same form grants once.
    form_id = forms.UUIDField(widget=forms.HiddenInput)


class MemberForm(forms.ModelForm[Member]):
    """Makes a member of somebody who has confirmed their address; everybody else is invited in the console."""

    def clean_user(self) -> User:
        user: User = self.cleaned_data["user"]
        if self.instance.user_id != user.pk and not has_confirmed(user, user.email):
            raise ValidationError("This address is not confirmed: whoever signed up with it may not be its owner.")
        return user


class MemberInline(OperatorInline):
    model = Member
    form = MemberForm
    fields = ["user", "role", "joined_at"]
    readonly_fields = ["joined_at"]
    autocomplete_fields = ["user"]


@admin.register(Organization)
class OrganizationAdmin(OperatorAdmin):
    form = OrganizationAdminForm
    list_display = ["name", "slug", "status", "posted_balance", "created_at"]
    list_filter = ["status"]
    list_select_related = ["balance"]
    search_fields = ["name", "slug"]
    readonly_fields = ["posted_balance", "created_at", "config_version"]
    inlines = [MemberInline]
    actions_detail = ["grant_credit"]
    fieldsets = [
        (None, {"fields": ["name", "slug", "status", "posted_balance", "credit_limit_nanos", "shows_cost_in_usage"]}),
        ("Limits", {"fields": [*LIMIT_FIELDS, *BUDGET_FIELDS]}),
        ("Record", {"fields": ["created_at", "config_version"]}),
    ]

    @admin.display(description="Balance")
    def posted_balance(self, organization: Organization) -> str:
        balance = getattr(organization, "balance", None)
        return f"${format_usd(balance.posted_nanos if balance else 0)}"

    def has_delete_permission(self, request: HttpRequest, obj: Organization | None = None) -> bool:
        """Never: the ledger keeps what an organization did. Close it instead."""
        return False

    def save_model(self, request: HttpRequest, obj: Organization, form: OrganizationAdminForm, change: bool) -> None:
        values = form.changed_values
        if change:
            saved = change_organization(obj, fields=values) if values else obj
        else:
            name, slug = values.pop("name"), values.pop("slug")
            saved = create_organization(name=name, slug=slug, fields=values)
        obj.__dict__.update(saved.__dict__)
        publish_or_tell(request)

    @detail_action("Grant credit", permission="billing.add_creditlot", url_path="grant-credit")
    def grant_credit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        organization = self.row_or_404(request, object_id)
        form = GrantCreditForm(request.POST or None, initial={"form_id": uuid.uuid4(), "kind": "promotional"})
        if request.method == "POST" and form.is_valid() and _grant(request, organization, form):
            amount = format_usd(form.cleaned_data["amount_nanos"])
            self.log_change(request, organization, f"Granted {amount} USD: {form.cleaned_data['reason']}")
            return redirect(reverse("admin:accounts_organization_change", args=[object_id]))
        return operator_form(
            self,
            request,
            row=organization,
            title=f"Grant credit to {organization.name}",
            text="Paid credit is money that came in by hand; promotional credit is given away, and never becomes cash.",
            form=form,
            submit="Grant credit",
        )


def _grant(request: HttpRequest, organization: Organization, form: GrantCreditForm) -> bool:
    values = form.cleaned_data
    from_day = values["expires_on"]
    try:
        grant_credit(
            organization,
            amount_nanos=values["amount_nanos"],
            kind=CreditLot.Kind(values["kind"]),
            reason=values["reason"],
            actor=str(request.user),
            idempotency_key=f"grant:{values['form_id']}",
            expires_at=start_of_day(from_day) if from_day else None,
        )
    except (InvalidTopUpError, IdempotencyConflictError) as error:
        form.add_error(None, str(error) or "This form was used for another grant.")
        return False
    amount = format_usd(values["amount_nanos"])
    publish_or_tell(request, done=f"Granted {amount} USD.", what_waits=f"Granted {amount} USD.")
    return True


class ApiKeyAdminForm(BudgetForm, KeyRestrictions):
    allowed_models = LinesField(
        max_items=MAX_MODELS,
        required=False,
        widget=UnfoldAdminTextareaWidget,
        help_text="One model id or alias a line. Empty: all models.",
    )
    allowed_networks = LinesField(
        max_items=MAX_NETWORKS,
        required=False,
        widget=UnfoldAdminTextareaWidget,
        help_text="One network a line, as 203.0.113.0/24. Empty: from everywhere.",
    )

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.model_ids = model_ids_by_name()


@admin.register(ApiKey)
class ApiKeyAdmin(OperatorAdmin):
    """Keys are made by members, who alone see their text. Nothing here can show it."""

    form = ApiKeyAdminForm
    list_display = ["name", "organization", "prefix", "last_four", "state", "created_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    list_select_related = ["organization"]
    search_fields = ["name", "prefix", "organization__name", "organization__slug"]
    readonly_fields = [
        "organization",
        "prefix",
        "last_four",
        "state",
        "created_by",
        "created_at",
        "revoked_by",
        "revoked_at",
        "config_version",
    ]
    actions_detail = ["revoke"]
    fieldsets = [
        (None, {"fields": ["name", "organization", "prefix", "last_four", "state"]}),
        ("Limits", {"fields": [*LIMIT_FIELDS, *BUDGET_FIELDS]}),
        ("Restrictions", {"fields": ["expires_at", "allowed_models", "allowed_networks"]}),
        ("Record", {"fields": ["created_by", "created_at", "revoked_by", "revoked_at", "config_version"]}),
    ]

    @admin.display(description="State")
    def state(self, key: ApiKey) -> str:
        if key.is_revoked:
            return "Revoked"
        return "Expired" if key.is_expired else "Live"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: ApiKey | None = None) -> bool:
        """Never: usage names the key. Revoke it instead."""
        return False

    def save_model(self, request: HttpRequest, obj: ApiKey, form: BudgetForm, change: bool) -> None:
        if form.changed_values:
            obj.__dict__.update(change_key(obj, fields=form.changed_values).__dict__)
            publish_or_tell(request)

    @detail_action("Revoke", permission="accounts.change_apikey", url_path="revoke")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.row_or_404(request, object_id)
        if request.method == "POST":
            assert isinstance(request.user, User)  # noqa: S101  the admin lets nobody else in
            try:
                revoke_key(key, revoked_by=request.user)
            except KeyAlreadyRevokedError:
                messages.info(request, "The key was revoked before.")
            else:
                self.log_change(request, key, "Revoked")
                publish_or_tell(
                    request, done="Revoked: every gateway refuses the key.", what_waits="The key is revoked."
                )
            return redirect(reverse("admin:accounts_apikey_change", args=[object_id]))
        return operator_form(
            self,
            request,
            row=key,
            title=f"Revoke {key}?",
            text=f"{key.organization} cannot use it from then on, and it cannot be brought back.",
            form=QuestionForm(),
            submit="Revoke key",
            is_dangerous=True,
        )


class PersonCreationForm(UserCreationForm):  # type: ignore[misc]  # unfold ships no types
    class Meta:
        model = User
        fields = ["email"]
        field_classes: dict[str, type[forms.Field]] = {}


class PersonChangeForm(UserChangeForm):  # type: ignore[misc]  # unfold ships no types
    class Meta:
        model = User
        fields = "__all__"
        field_classes: dict[str, type[forms.Field]] = {}


@admin.register(User)
class UserAdmin(DjangoUserAdmin, OperatorAdmin):  # type: ignore[type-arg]  # its argument is not there at run time
    form = PersonChangeForm
    add_form = PersonCreationForm
    change_password_form = AdminPasswordChangeForm
    ordering = ["email"]
    list_display = ["email", "name", "is_staff", "is_active", "date_joined"]
    list_filter = ["is_staff", "is_active"]
    search_fields = ["email", "name"]
    filter_horizontal = ["user_permissions"]
    fieldsets = [
        (None, {"fields": ["email", "name", "password"]}),
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser", "user_permissions"]}),
        ("Record", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["email", "usable_password", "password1", "password2"]})]
    readonly_fields = ["last_login", "date_joined"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        """Operators are changed by superusers alone: whoever sets somebody's password can become that person."""
        if obj is not None and (obj.is_staff or obj.is_superuser) and not is_superuser(request):
            return False
        return super().has_change_permission(request, obj)

    def get_form(self, request: HttpRequest, obj: User | None = None, change: bool = False, **options: Any) -> Any:
        if obj is not None and not is_superuser(request):
            options["form"] = forms.ModelForm  # The usual one holds the password.
        return super().get_form(request, obj, change=change, **options)

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        """Who is no superuser changes names and closes logins, and nothing that lets anybody in."""
        if obj is None or is_superuser(request):
            return super().get_fieldsets(request, obj)
        return [(None, {"fields": ["email", "name", "is_active", "date_joined"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        closed = [] if is_superuser(request) else ["email", "is_staff", "is_superuser", "user_permissions", "password"]
        return [*self.readonly_fields, *closed]

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        if not is_superuser(request):
            raise PermissionDenied
        response: HttpResponse = super().user_change_password(request, id, form_url)
        return response

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: the ledger and keys name people. Deactivate the login instead."""
        return False


@admin.register(AdmissionChange)
class AdmissionChangeAdmin(ReadOnlyAdmin):
    """What Redis has not heard of yet. Empty when all is well: the worker publishes every second."""

    list_display = ["id", "organization", "key", "created_at"]
    list_select_related = ["organization", "key"]
    ordering = ["id"]
