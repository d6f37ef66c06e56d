"""Usage and quarantine, to look at; an operator refunds a request, and settles a quarantined event, or gives it up."""

import uuid
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.models import Organization
from billing.corrections.refunds import refundable_nanos, refunded_nanos
from billing.models import Approval, FailedRequest, UsageQuarantine, UsageRecord
from billing.money import format_usd
from billing.settlement.quarantine_resolution import ResolutionError, discard_quarantined, settle_quarantined
from operations.admin.base import ReadOnlyAdmin, admin_usd_field, detail_action, operator_form, usd_column
from operations.admin.named_rows import RequestRows
from operations.admin.organization_money import say_bound
from operations.asking import ask_or_tell, mark_of, show_first
from pages.forms import Form
from pages.publishing import publish_or_tell


class RefundForm(Form):
    """Sent once it shows what would be posted; sent again with the same amount it is done."""

    amount_nanos = admin_usd_field("Amount, USD (empty: all of it)")
    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Members see it.")
    # Sent twice, the same form refunds once.
    form_id = forms.UUIDField(widget=forms.HiddenInput)
    shown = forms.CharField(required=False, widget=forms.HiddenInput)


class ReasonForm(Form):
    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget, help_text="It is kept.")


@admin.register(UsageRecord)
class UsageRecordAdmin(RequestRows, ReadOnlyAdmin):
    list_display = [
        "request_id",
        "organization",
        "key",
        "model_id",
        "input_tokens",
        "output_tokens",
        "cost",
        "upstream_cost",
        "usage_source",
        "admitted_at",
    ]
    actions_detail = ["refund"]
    cost = usd_column("cost_nanos", "Cost")
    upstream_cost = usd_column("upstream_cost_nanos", "Upstream cost")

    @detail_action("Refund", permission="billing.add_ledgertransaction", url_path="refund")
    def refund(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Show what would be posted, and post it when the same is sent again."""
        record: UsageRecord = self.row_or_404(request, object_id)
        form = RefundForm(request.POST or None, initial={"form_id": uuid.uuid4()})
        cost, refunded = format_usd(record.cost_nanos), format_usd(refunded_nanos(record))
        text = (
            f"It cost ${cost}, of which ${refunded} were refunded so far. A refund goes back to the credit lots"
            f" that paid for it. {say_bound(request)}"
        )
        submit = "Show what would be posted"
        if request.method == "POST" and form.is_valid():
            asked = _asked(record, form)
            lines = show_first(request, form, Approval.Kind.USAGE_REFUND, **asked)
            if lines:
                text, submit = "\n".join(lines), "Refund"
                form = RefundForm(initial={**form.cleaned_data, "shown": mark_of(asked["terms"])})
            elif not form.errors and ask_or_tell(request, form, Approval.Kind.USAGE_REFUND, **asked, done="Refunded."):
                return redirect(reverse("operations_request", args=[record.request_id.hex]))
        return operator_form(
            self,
            request,
            row=record,
            title=f"Refund request {record.request_id.hex}",
            text=text,
            form=form,
            submit=submit,
            is_dangerous=submit == "Refund",
        )


def _asked(record: UsageRecord, form: RefundForm) -> dict[str, Any]:
    """Return what the form asks for, as approvals take it."""
    amount: int | None = form.cleaned_data["amount_nanos"]
    left = refundable_nanos(record) - refunded_nanos(record)
    return {
        "organization": Organization.objects.get(pk=record.organization_id),
        "terms": {"request_id": record.request_id.hex, "amount_nanos": amount},
        "amount_nanos": max(0, left if amount is None else amount),
    }


@admin.register(FailedRequest)
class FailedRequestAdmin(RequestRows, ReadOnlyAdmin):
    list_display = ["request_id", "organization", "key", "model_id", "error_code", "upstream_cost", "admitted_at"]
    upstream_cost = usd_column("upstream_cost_nanos", "Upstream cost")


@admin.register(UsageQuarantine)
class UsageQuarantineAdmin(ReadOnlyAdmin):
    list_display = ["reason", "organization", "created_at", "standing", "resolved_by"]
    list_filter = [("resolved_at", admin.EmptyFieldListFilter)]
    list_select_related = ["organization"]
    ordering = ["-id"]
    fields = [
        "organization",
        "shard",
        "stream_id",
        "event",
        "reason",
        "created_at",
        "resolved_at",
        "resolved_by",
        "resolution",
        "resolution_reason",
    ]
    readonly_fields = ["event"]
    shown_once_set = ["resolved_at", "resolved_by", "resolution", "resolution_reason"]
    actions_detail = ["settle", "discard"]

    @admin.display(description="State", ordering="resolved_at")
    def standing(self, row: UsageQuarantine) -> str:
        return row.get_resolution_display() or ("Resolved" if row.resolved_at else "Waits")

    @admin.display(description="Event")
    def event(self, row: UsageQuarantine) -> str:
        return bytes(row.raw_event).decode("utf-8", "backslashreplace")

    def offers(self, request: HttpRequest, row: UsageQuarantine, button: str) -> bool:
        return row.resolved_at is None

    @detail_action("Settle", permission="billing.change_usagequarantine", url_path="settle")
    def settle(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = "Does what settlement would do if the event came now, after its fault was repaired."
        return self._resolve(request, object_id, settle_quarantined, title="Settle this event?", text=text)

    @detail_action("Discard", permission="billing.change_usagequarantine", url_path="discard")
    def discard(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = "The event stays here, and nobody is ever charged for it."
        return self._resolve(request, object_id, discard_quarantined, title="Discard this event?", text=text)

    def _resolve(
        self,
        request: HttpRequest,
        object_id: str,
        resolve: Callable[..., UsageQuarantine],
        *,
        title: str,
        text: str,
    ) -> HttpResponse:
        row = self.row_or_404(request, object_id)
        form = ReasonForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                resolved = resolve(row, actor=str(request.user), reason=form.cleaned_data["reason"])
            except ResolutionError as error:
                messages.error(request, str(error))
            else:
                done = resolved.get_resolution_display()
                self.log_change(request, row, f"{done}: {resolved.resolution_reason}")
                publish_or_tell(request, done=f"{done}.", what_waits=f"{done}.")
            return redirect(reverse("admin:billing_usagequarantine_change", args=[object_id]))
        return operator_form(
            self,
            request,
            row=row,
            title=title,
            text=text,
            form=form,
            submit=title.partition(" ")[0],
            is_dangerous=resolve is discard_quarantined,
        )
