"""Redemption codes: made here, shown once, revoked. What a code is worth cannot be changed."""

import uuid
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from billing.approvals.book import ApprovalError
from billing.approvals.codes import ask_for_codes
from billing.approvals.kinds import ChangeError
from billing.credit.redemption import (
    MAX_CODES_AT_ONCE,
    MAX_REDEMPTIONS_PER_CODE,
    InvalidCodeError,
    NewCode,
    revoke_code,
)
from billing.ledger.book import DEFAULT_PRIORITY, IdempotencyConflictError
from billing.models import Approval, Redemption, RedemptionCode
from billing.usage.report import start_of_day
from operations.admin.base import (
    ReadOnlyAdmin,
    ReadOnlyInline,
    admin_usd_field,
    ask_first,
    detail_action,
    operator_form,
    usd_column,
)
from operations.admin.organization_money import say_bound
from operations.asking import operator_of, tell
from pages.forms import Form

MAX_PRIORITY = 32_767


def _day_field(label: str, help_text: str) -> forms.DateField:
    widget = UnfoldAdminTextInputWidget(attrs={"type": "date"})
    return forms.DateField(required=False, label=label, widget=widget, help_text=help_text)


class CreateCodesForm(Form):
    amount_nanos = admin_usd_field("Amount of each, USD", required=True)
    count = forms.IntegerField(
        label="Number of codes",
        initial=1,
        min_value=1,
        max_value=MAX_CODES_AT_ONCE,
        widget=UnfoldAdminIntegerFieldWidget,
    )
    max_redemptions = forms.IntegerField(
        label="Uses of each",
        initial=1,
        min_value=1,
        max_value=MAX_REDEMPTIONS_PER_CODE,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="How many organizations may redeem it; each does so once.",
    )
    expires_on = _day_field("Codes expire", "At the beginning of this day, UTC. Empty: never.")
    lot_expires_on = _day_field("Credit expires", "At the beginning of this day, UTC. Empty: never.")
    lot_priority = forms.IntegerField(
        label="Priority of the credit",
        initial=DEFAULT_PRIORITY,
        min_value=0,
        max_value=MAX_PRIORITY,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Lower is spent first.",
    )
    reason = forms.CharField(max_length=150, widget=UnfoldAdminTextInputWidget, help_text="Members see it.")
    # Sent twice, the same form makes codes once.
    form_id = forms.UUIDField(widget=forms.HiddenInput)


class RedemptionInline(ReadOnlyInline):
    model = Redemption
    fields = ["organization", "ledger_transaction", "redeemed_by", "redeemed_at"]
    readonly_fields = ["redeemed_at"]
    per_page = 50


@admin.register(RedemptionCode)
class RedemptionCodeAdmin(ReadOnlyAdmin):
    list_display = ["prefix", "reason", "amount", "uses", "expires_at", "lot_expires_at", "state", "created_by"]
    list_filter = [("revoked_at", admin.EmptyFieldListFilter)]
    search_fields = ["prefix", "reason"]
    list_select_related = ["approval"]
    ordering = ["-id"]
    inlines = [RedemptionInline]
    actions_detail = ["revoke"]
    amount = usd_column("amount_nanos", "Amount")

    @admin.display(description="Uses")
    def uses(self, code: RedemptionCode) -> str:
        return f"{code.redemption_count} of {code.max_redemptions}"

    @admin.display(description="State")
    def state(self, code: RedemptionCode) -> str:
        if code.revoked_at:
            return "Revoked"
        is_released = code.approval is None or code.approval.state == Approval.State.APPLIED
        return "Live" if is_released else "Waits for approval"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_redemptioncode")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Make codes and show them on the answer to the POST: they are kept nowhere, so there is no second look."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = CreateCodesForm(request.POST or None, initial={"form_id": uuid.uuid4()})
        if request.method == "POST" and form.is_valid():
            made = _create(request, form)
            if made:
                for new in made:
                    self.log_addition(request, new.code, "Created")
                context = {**self.admin_site.each_context(request), "opts": self.opts, "made": made}
                return render(request, "operations/codes_created.html", {**context, "title": "New codes"})
        return operator_form(
            self,
            request,
            row=None,
            title="Make redemption codes",
            text="Each gives promotional credit to the organizations that redeem it. The codes are shown once."
            f" {say_bound(request)}",
            form=form,
            submit="Make codes",
        )

    def offers(self, request: HttpRequest, row: RedemptionCode, button: str) -> bool:
        return row.revoked_at is None

    @detail_action("Revoke", permission="billing.change_redemptioncode", url_path="revoke")
    def revoke(self, request: HttpRequest, object_id: str) -> HttpResponse:
        code = self.row_or_404(request, object_id)

        def do() -> None:
            if revoke_code(code, revoked_by=str(request.user)):
                self.log_change(request, code, "Revoked")
                messages.success(request, "Revoked: nobody can redeem it any more.")
            else:
                messages.info(request, "It is revoked already.")

        return ask_first(
            self,
            request,
            code,
            do,
            title=f"Revoke {code}?",
            text="Nobody can redeem it from then on. Credit that it gave stays.",
            submit="Revoke code",
            is_dangerous=True,
        )


def _create(request: HttpRequest, form: CreateCodesForm) -> list[NewCode]:
    values = form.cleaned_data
    expires_on, lot_expires_on = values["expires_on"], values["lot_expires_on"]
    wanted = {
        "amount_nanos": values["amount_nanos"],
        "reason": values["reason"],
        "count": values["count"],
        "max_redemptions": values["max_redemptions"],
        "expires_at": start_of_day(expires_on) if expires_on else None,
        "lot_expires_at": start_of_day(lot_expires_on) if lot_expires_on else None,
        "lot_priority": values["lot_priority"],
    }
    key = f"codes:{values['form_id'].hex}"
    operator = operator_of(request)
    try:
        asked, made = ask_for_codes(wanted, asked_by=operator, idempotency_key=key, created_by=str(operator))
    except (InvalidCodeError, ChangeError, ApprovalError, IdempotencyConflictError) as error:
        form.add_error(None, str(error))
        return []
    if asked.is_new:
        tell(request, asked, done=f"Made {len(made)} codes.")
    else:
        form.add_error(None, "This form has made its codes: they were shown then, and are kept nowhere.")
    return made
