"""Operators' pages of API keys."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from accounts.keys import KeyAlreadyRevokedError, change_key, revoke_key
from accounts.models import ApiKey, User
from billing.catalog.names import model_ids_by_name
from operations.admin.base import (
    ManyRowsAdmin,
    ask_first,
    detail_action,
    operator_form,
)
from operations.admin.budgets import BudgetForm
from operations.asking import operator_of
from operations.leaks import MAX_PLACE_CHARS, revoke_leaked
from pages.fields import LinesField
from pages.forms import Form
from pages.key_restrictions import (
    BUDGET_FIELDS,
    LIMIT_FIELDS,
    MAX_MODELS,
    MAX_NETWORKS,
    KeyRestrictions,
)
from pages.publishing import publish_or_tell


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


class LeakForm(Form):
    place = forms.CharField(
        required=False,
        max_length=MAX_PLACE_CHARS,
        widget=UnfoldAdminTextInputWidget,
        label="Where it was found",
        help_text="Its people read it.",
    )


@admin.register(ApiKey)
class ApiKeyAdmin(ManyRowsAdmin):
    """Keys are made by members, who alone see their text. Nothing here can show it."""

    form = ApiKeyAdminForm
    list_display = ["name", "organization", "prefix", "last_four", "state", "created_at"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    list_select_related = ["organization"]
    ordering = ["-id"]
    search_fields = ["=prefix", "=last_four", "=organization__slug", "name", "organization__name"]
    searched_newest = 100_000
    search_help_text = (
        "A key's beginning (cm- and eight characters) or its last four characters, an organization's slug or name, or a"
        " key's name: of the newest 100,000 keys, and beside a slug of all."
    )
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
    actions_detail = ["revoke", "leaked"]
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

    def offers(self, request: HttpRequest, row: ApiKey, button: str) -> bool:
        return not row.is_revoked

    @detail_action("Revoke as leaked", permission="accounts.change_apikey", url_path="leaked")
    def leaked(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """As `manage.py revoke_key --yes` and GitHub's messages do it."""
        key: ApiKey = self.row_or_404(request, object_id)
        form = LeakForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            leak = revoke_leaked(key, place=form.cleaned_data["place"], revoked_by=operator_of(request))
            if leak.is_new:
                done = "Revoked: every gateway refuses the key, and its people get mail."
                publish_or_tell(request, done=done, what_waits="The key is revoked, and its people get mail.")
            else:
                messages.info(request, "The key is revoked already.")
            return redirect(reverse("admin:accounts_apikey_change", args=[object_id]))
        return operator_form(
            self,
            request,
            row=key,
            title=f"Revoke {key} as leaked?",
            text=f"{key.organization} cannot use it from then on, and it cannot be brought back. Its maker, and the"
            " owners and admins of its organization, get mail with a link to what it was used for.",
            form=form,
            submit="Revoke and tell them",
            is_dangerous=True,
        )

    @detail_action("Revoke", permission="accounts.change_apikey", url_path="revoke")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        key = self.row_or_404(request, object_id)

        def do() -> None:
            assert isinstance(request.user, User)  # noqa: S101  the admin lets nobody else in
            try:
                revoke_key(key, revoked_by=request.user)
            except KeyAlreadyRevokedError:
                messages.info(request, "The key is revoked already.")
            else:
                self.log_change(request, key, "Revoked")
                publish_or_tell(
                    request, done="Revoked: every gateway refuses the key.", what_waits="The key is revoked."
                )

        return ask_first(
            self,
            request,
            key,
            do,
            title=f"Revoke {key}?",
            text=f"{key.organization} cannot use it from then on, and it cannot be brought back.",
            submit="Revoke key",
            is_dangerous=True,
        )
