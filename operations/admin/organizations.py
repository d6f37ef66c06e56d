"""Operators' pages of organizations, their members and their credit."""

from typing import Any

from django.contrib import admin
from django.core.exceptions import ValidationError
from django.db import transaction
from django.forms import BaseInlineFormSet
from django.http import HttpRequest

from accounts.members import change_role, has_confirmed, remove_member
from accounts.models import Member, Organization, Role, User
from accounts.organizations import SlugRefusedError, change_organization, check_slug, create_organization
from operations.admin.base import (
    ManyRowsAdmin,
    OperatorInline,
    usd_column,
)
from operations.admin.budgets import BudgetForm
from operations.admin.organization_money import OrganizationMoney
from operations.admin.organization_panels import OrganizationPanels
from operations.admin.organization_states import OrganizationStates
from operations.admin.privacy import OrganizationPrivacy
from pages.forms import ModelForm
from pages.key_restrictions import (
    BUDGET_FIELDS,
    LIMIT_FIELDS,
)
from pages.publishing import publish_in_silence, publish_or_tell
from pages.templatetags.amounts import usd

PANELS = ["money", "usage", "waiting", "budgets", "keys", "lots", "documents", "elsewhere"]
RECORD = ["created_at", "config_version"]
NEW_FIELDSETS = [
    (None, {"fields": ["name", "slug", "shows_cost_in_usage"]}),
    ("Limits", {"fields": [*LIMIT_FIELDS, *BUDGET_FIELDS]}),
]


class OrganizationAdminForm(BudgetForm):
    """Its credit limit and its status are changed by buttons of their own."""

    def clean_slug(self) -> str:
        slug: str = self.cleaned_data["slug"]
        try:
            check_slug(slug, organization=Organization.objects.filter(pk=self.instance.pk).first())
        except SlugRefusedError as error:
            raise ValidationError(str(error)) from None
        return slug


class MemberForm(ModelForm[Member]):
    """Makes a member of somebody who has confirmed their address; everybody else is invited in the console."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.instance.pk and "user" in self.fields:
            self.fields["user"].disabled = True  # Whose membership it is does not change: one ends, another begins.

    def clean_user(self) -> User:
        user: User = self.cleaned_data["user"]
        if self.instance.user_id != user.pk and not has_confirmed(user, user.email):
            raise ValidationError("This address is not confirmed: whoever signed up with it may not be its owner.")
        return user


class MemberFormSet(BaseInlineFormSet):  # type: ignore[type-arg]  # its arguments are not there at run time
    """Changes and ends memberships as accounts/members.py does: an owner stays, and keys end with what gave them."""

    def save_existing_objects(self, commit: bool = True) -> list[Any]:
        """Save what was there. New owners come first, so that the one before may go at the same time."""
        for form in self.initial_forms:
            if "role" in form.changed_data and form.cleaned_data["role"] == Role.OWNER:
                change_role(form.instance, role=Role.OWNER)
        saved: list[Any] = super().save_existing_objects(commit)
        return saved

    def save_existing(self, form: Any, obj: Any, commit: bool = True) -> Any:
        if "role" in form.changed_data:
            change_role(obj, role=Role(form.cleaned_data["role"]))
        return obj

    def delete_existing(self, obj: Any, commit: bool = True) -> None:
        remove_member(obj)

    def clean(self) -> None:
        super().clean()
        organization = self.instance
        if organization.pk is None:
            return
        # The organization's row is the lock, so that two owners cannot be taken away at the same moment.
        Organization.objects.select_for_update().get(pk=organization.pk)
        owners = set(organization.members.filter(role=Role.OWNER).values_list("pk", flat=True))
        had_owners = bool(owners)
        for form in self.forms:
            values = getattr(form, "cleaned_data", None) or {}
            if not values or form.errors:
                continue
            owners.discard(form.instance.pk)
            if values.get("role") == Role.OWNER and not values.get("DELETE"):
                owners.add(form.instance.pk or -1)
        if had_owners and not owners:
            raise ValidationError("The organization would have no owner any more. Make somebody else one first.")


class MemberInline(OperatorInline):
    model = Member
    form = MemberForm
    fields = ["user", "role", "joined_at"]
    readonly_fields = ["joined_at"]
    autocomplete_fields = ["user"]
    formset = MemberFormSet


@admin.register(Organization)
class OrganizationAdmin(OrganizationPanels, OrganizationStates, OrganizationMoney, OrganizationPrivacy, ManyRowsAdmin):
    form = OrganizationAdminForm
    list_display = ["name", "slug", "status", "posted_balance", "created_at"]
    list_filter = ["status"]
    list_select_related = ["balance"]
    ordering = ["-id"]
    search_fields = ["name", "slug"]
    readonly_fields = [
        "status",
        "status_reason",
        "former_slugs",
        "credit_limit",
        *PANELS,
        "created_at",
        "config_version",
    ]
    inlines = [MemberInline]
    actions_detail = [
        "look",
        "grant_credit",
        "adjust_balance",
        "change_credit_limit",
        "suspend",
        "reopen",
        "close",
        "keep_details",
        "export",
        "erase",
    ]
    fieldsets = [
        (None, {"fields": ["name", "slug", "former_slugs", "status", "status_reason", "shows_cost_in_usage"]}),
        ("At a glance", {"fields": ["credit_limit", *PANELS]}),
        ("Limits", {"fields": [*LIMIT_FIELDS, *BUDGET_FIELDS]}),
        ("Record", {"fields": RECORD}),
    ]

    credit_limit = usd_column("credit_limit_nanos", "Credit limit")

    def get_fieldsets(self, request: HttpRequest, obj: Organization | None = None) -> Any:
        """What is not there yet has nothing to see at a glance."""
        return NEW_FIELDSETS if obj is None else super().get_fieldsets(request, obj)

    @admin.display(description="Former slugs")
    def former_slugs(self, organization: Organization) -> str:
        return ", ".join(organization.former_slugs.values_list("slug", flat=True)) or "None"

    @admin.display(description="Balance")
    def posted_balance(self, organization: Organization) -> str:
        balance = getattr(organization, "balance", None)
        return usd(balance.posted_nanos if balance else 0)

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

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        """Let every gateway know of keys that ended with a role or a membership, once it is committed."""
        super().save_related(request, form, formsets, change)
        transaction.on_commit(publish_in_silence)
