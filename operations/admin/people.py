"""Operators' pages of people who sign in."""

from typing import Any

from allauth.account.adapter import get_adapter
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount, SocialApp, SocialToken
from allauth.usersessions.models import UserSession
from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest, HttpResponse
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm
from unfold.widgets import UnfoldAdminCheckboxSelectMultipleWidget, UnfoldAdminSelectMultipleWidget

from accounts.members import end_management
from accounts.models import ApiKey, User
from accounts.staff_roles import StaffRole, permissions_of
from operations.admin.base import (
    ManyRowsAdmin,
    ask_first,
    detail_action,
    is_superuser,
)
from operations.admin.privacy import PersonPrivacy
from operations.asking import operator_of
from pages.publishing import publish_in_silence

admin.site.unregister(Group)
admin.site.unregister(EmailAddress)  # allauth's page lets whoever looks at addresses confirm them.
# Whoever saw these could sign in as their owners: seeds of codes, ids of sessions, tokens of other companies.
for opens_logins in (Authenticator, UserSession, SocialApp, SocialAccount, SocialToken):
    admin.site.unregister(opens_logins)

SUPERUSERS_ALONE = ["email", "is_staff", "is_superuser", "groups", "user_permissions", "password"]


class PermissionsField(forms.ModelMultipleChoiceField):  # type: ignore[type-arg]  # not there at run time
    """What operators can be given by hand, beside their roles. Django offers hundreds that open no page."""

    def __init__(self, **options: Any) -> None:
        held = {name for role in StaffRole for name in permissions_of(role)}
        by_app: dict[str, list[str]] = {}
        for name in sorted(held):
            app, _, codename = name.partition(".")
            by_app.setdefault(app, []).append(codename)
        wanted = Q()
        for app, codenames in by_app.items():
            wanted |= Q(content_type__app_label=app, codename__in=codenames)
        rows = Permission.objects.filter(wanted | Q(user__isnull=False)).select_related("content_type").distinct()
        super().__init__(rows.order_by("content_type__app_label", "codename"), **options)

    def label_from_instance(self, obj: Any) -> str:
        return f"{obj.content_type.app_label}.{obj.codename}"


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
class UserAdmin(PersonPrivacy, DjangoUserAdmin, ManyRowsAdmin):  # type: ignore[misc, type-arg]  # its argument is not there at run time
    form = PersonChangeForm
    add_form = PersonCreationForm
    change_password_form = AdminPasswordChangeForm
    ordering = ["email"]
    list_display = ["email", "name", "is_staff", "is_superuser", "staff_roles", "is_active", "date_joined"]
    list_filter = ["is_staff", "is_active"]
    search_fields = ["email", "name"]
    filter_horizontal = []  # Two lists side by side, which no screen reader can use.
    fieldsets = [
        (None, {"fields": ["email", "name", "password"]}),
        ("Permissions", {"fields": ["is_active", "is_staff", "is_superuser", "groups", "user_permissions"]}),
        ("Record", {"fields": ["last_login", "date_joined"]}),
    ]
    add_fieldsets = [(None, {"classes": ["wide"], "fields": ["email", "usable_password", "password1", "password2"]})]
    readonly_fields = ["last_login", "date_joined"]
    actions_detail = ["remove_second_factor", "export", "erase"]

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **options: Any) -> Any:
        """Staff roles are few: boxes to tick. Of permissions those that a role may hold, under their own names."""
        if db_field.name == "groups":
            options["widget"] = UnfoldAdminCheckboxSelectMultipleWidget
        if db_field.name == "user_permissions":
            return PermissionsField(required=False, widget=UnfoldAdminSelectMultipleWidget)
        return super().formfield_for_manytomany(db_field, request, **options)

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    @admin.display(description="Staff roles")
    def staff_roles(self, person: User) -> str:
        return ", ".join(group.name for group in person.groups.all())

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
        """Who is not a superuser changes names and closes logins, and nothing that lets anybody in."""
        if obj is None or is_superuser(request):
            return super().get_fieldsets(request, obj)
        return [(None, {"fields": ["email", "name", "is_active", "date_joined"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> list[str]:
        return [*self.readonly_fields, *([] if is_superuser(request) else SUPERUSERS_ALONE)]

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """A login that is closed manages nothing any more, by no key either."""
        super().save_model(request, obj, form, change)
        if change and not obj.is_active and "is_active" in form.changed_data:
            disabled = end_management(obj, ended_by=operator_of(request))
            live = ApiKey.objects.filter(owner=obj, revoked_at=None, disabled_at=None).count()
            messages.info(
                request,
                f"Management keys that were disabled: {disabled}. Other keys that work on: {live}; they are their"
                " organizations', whose admins may disable them.",
            )
            transaction.on_commit(publish_in_silence)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:  # noqa: A002
        if not is_superuser(request):
            raise PermissionDenied
        response: HttpResponse = super().user_change_password(request, id, form_url)
        return response

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Never: the ledger and keys name people. Deactivate the login instead."""
        return False

    def offers(self, request: HttpRequest, row: User, button: str) -> bool:
        if button == "erase":
            return not row.is_staff
        return button != "remove_second_factor" or (
            is_superuser(request) and Authenticator.objects.filter(user=row).exists()
        )

    @detail_action("Remove second factor", permission="accounts.change_user", url_path="remove-second-factor")
    def remove_second_factor(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """For somebody who has lost the phone and the recovery codes, once they have shown who they are."""
        if not is_superuser(request):
            raise PermissionDenied
        person = self.row_or_404(request, object_id)

        def do() -> None:
            removed = Authenticator.objects.filter(user=person).delete()[0]
            self.log_change(request, person, f"Removed the second factor ({removed} parts of it)")
            get_adapter().send_mail("mfa/email/removed_by_us", person.email, {})  # Whoever asked for it may be another.
            messages.success(request, f"{person.email} signs in without a second factor now.")

        return ask_first(
            self,
            request,
            person,
            do,
            title=f"Remove the second factor of {person.email}?",
            text="App, passkeys and recovery codes end: the password alone signs in. Be sure who asked for it.",
            submit="Remove second factor",
            is_dangerous=True,
        )


@admin.register(EmailAddress)
class EmailAddressAdmin(ManyRowsAdmin):
    """Whoever confirms an address says who somebody is: for superusers alone, one address at a time."""

    list_display = ["email", "user", "primary", "verified"]
    list_filter = ["primary", "verified"]
    list_select_related = ["user"]
    search_fields = ["=email", "=user__email"]
    search_help_text = "A whole address."
    autocomplete_fields = ["user"]
    actions = None
    ordering = ["email"]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return is_superuser(request)

    def has_change_permission(self, request: HttpRequest, obj: EmailAddress | None = None) -> bool:
        return is_superuser(request)

    def has_delete_permission(self, request: HttpRequest, obj: EmailAddress | None = None) -> bool:
        return is_superuser(request)
