"""Payments: to look at, to pay back (the postings are shown first), and breaks to resolve with a note."""

import uuid
from datetime import date
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from unfold.widgets import UnfoldAdminTextInputWidget, UnfoldBooleanWidget

from billing.models import (
    Approval,
    AutomaticTopUp,
    PaymentBreak,
    PaymentDispute,
    PaymentMovement,
    PaymentRefund,
    PaymentReversal,
    RecurringCredit,
    TopUp,
)
from billing.money import format_usd
from billing.payments.providers import provider_names
from billing.payments.recurring import end_monthly
from billing.payments.refunds import InvalidPaymentRefundError, plan_refund, refundable_nanos
from billing.reconciliation.breaks import resolve_payment_break
from operations.admin.base import (
    OrganizationField,
    ReadOnlyAdmin,
    ReadOnlyInline,
    admin_usd_field,
    ask_first,
    detail_action,
    operator_form,
    usd_column,
)
from operations.admin.filters import known_values
from operations.admin.organization_money import say_bound
from operations.admin.waiting_refunds import WaitingRefunds
from operations.asking import ask_or_tell
from pages.forms import Form

MAX_REASON_CHARACTERS = 200
MONTHS_COUNTED_WITHOUT_END = 12


class RefundForm(Form):
    """Sent once it shows what would be posted; sent again with the same amount it is done."""

    amount_nanos = admin_usd_field("Amount, USD", required=True)
    reason = forms.CharField(
        max_length=MAX_REASON_CHARACTERS, widget=UnfoldAdminTextInputWidget, help_text="Kept with the refund."
    )
    even_if_disputed = forms.BooleanField(
        required=False,
        label="Pay back although it is disputed",
        widget=UnfoldBooleanWidget,
        help_text="The card holder may then be paid twice.",
    )
    form_id = forms.UUIDField(widget=forms.HiddenInput)
    shown_nanos = forms.IntegerField(required=False, widget=forms.HiddenInput)


class NoteForm(Form):
    resolution = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget, label="How it was resolved")


class RecurringCreditForm(Form):
    organization = OrganizationField()
    amount_nanos = admin_usd_field("Amount each month, USD", required=True)
    first_month = forms.DateField(
        label="From the month of", widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}), initial=date.today
    )
    last_month = forms.DateField(
        required=False,
        label="To the month of",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="Empty: until it is ended.",
    )
    reason = forms.CharField(max_length=150, widget=UnfoldAdminTextInputWidget, help_text="Members see it.")
    form_id = forms.UUIDField(widget=forms.HiddenInput)


class MovementInline(ReadOnlyInline):
    model = PaymentMovement
    fields = ["kind", "reference", "amount", "occurred_at", "recorded_at"]
    readonly_fields = ["amount", "recorded_at"]
    amount = usd_column("amount_nanos", "Amount")


class ReversalInline(ReadOnlyInline):
    model = PaymentReversal
    fields = ["number", "amount", "reason", "ledger_transaction", "created_at"]
    readonly_fields = ["amount", "created_at"]
    amount = usd_column("amount_nanos", "Amount")


class RefundInline(ReadOnlyInline):
    model = PaymentRefund
    fields = ["amount", "reason", "created_by", "created_at", "done_at", "refused"]
    readonly_fields = ["amount", "created_at"]
    amount = usd_column("amount_nanos", "Amount")


class DisputeInline(ReadOnlyInline):
    model = PaymentDispute
    fields = ["dispute_id", "status", "status_as_of", "opened_at"]
    readonly_fields = ["opened_at"]


@admin.register(TopUp)
class TopUpAdmin(WaitingRefunds, ReadOnlyAdmin):
    list_display = ["id", "organization", "amount", "currency", "state", "provider", "origin", "created_at", "paid_at"]
    list_filter = ["state", known_values("provider", "provider", provider_names), "origin"]
    list_select_related = ["organization"]
    search_fields = ["=organization__slug", "=checkout_id", "=payment_id", "=charge_id", "=reference"]
    ordering = ["-id"]
    inlines = [ReversalInline, RefundInline, MovementInline, DisputeInline]
    actions_detail = ["pay_back", "ask_again", "give_up"]
    amount = usd_column("amount_nanos", "Amount")

    def offers(self, request: HttpRequest, row: TopUp, button: str) -> bool:
        return refundable_nanos(row) > 0 if button == "pay_back" else super().offers(request, row, button)

    @detail_action("Pay back", permission="billing.change_topup", url_path="pay-back")
    def pay_back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        top_up: TopUp = self.row_or_404(request, object_id)
        left = refundable_nanos(top_up)
        initial = {"form_id": uuid.uuid4(), "amount_nanos": left}
        form = RefundForm(request.POST or None, initial=initial)
        text = (
            f"The provider holds {format_usd(left)} USD of this payment, which may be paid back. {say_bound(request)}"
        )
        submit = "Show what would be posted"
        if request.method == "POST" and form.is_valid():
            amount = form.cleaned_data["amount_nanos"]
            if form.cleaned_data["shown_nanos"] == amount:
                answer = self._refund(request, top_up, form)
                if answer is not None:
                    return answer
            else:
                try:
                    text, submit = _describe(top_up, amount), "Pay back"
                    form = RefundForm(initial={**form.cleaned_data, "shown_nanos": amount})
                except InvalidPaymentRefundError as error:
                    form.add_error("amount_nanos", str(error))
        return operator_form(
            self,
            request,
            row=top_up,
            title=f"Pay {top_up} back",
            text=text,
            form=form,
            submit=submit,
            is_dangerous=submit == "Pay back",
        )

    def _refund(self, request: HttpRequest, top_up: TopUp, form: RefundForm) -> HttpResponse | None:
        amount = form.cleaned_data["amount_nanos"]
        is_taken = ask_or_tell(
            request,
            form,
            Approval.Kind.PAYMENT_REFUND,
            organization=top_up.organization,
            terms={
                "top_up_id": top_up.pk,
                "amount_nanos": amount,
                "even_if_disputed": form.cleaned_data["even_if_disputed"],
            },
            amount_nanos=max(0, amount),
            done=f"{format_usd(amount)} USD are paid back.",
        )
        return redirect(reverse("admin:billing_topup_change", args=[top_up.pk])) if is_taken else None


def _describe(top_up: TopUp, amount_nanos: int) -> str:
    """Say what a refund would do. Raises InvalidPaymentRefundError."""
    plan = plan_refund(top_up, amount_nanos=amount_nanos)
    postings = ", ".join(
        f"{account} {'+' if nanos > 0 else '-'}{format_usd(abs(nanos))}" for account, nanos in plan.postings
    )
    balance = f"The balance would be {format_usd(plan.balance_after_nanos)} USD."
    return " ".join(filter(None, [plan.warning, f"It would post, in USD: {postings}.", balance]))


@admin.register(PaymentBreak)
class PaymentBreakAdmin(ReadOnlyAdmin):
    list_display = ["kind", "detail", "provider", "reference", "amount", "top_up", "found_at", "resolved_at"]
    shown_once_set = ["top_up", "resolved_at", "resolved_by", "resolution"]
    list_filter = ["kind", ("resolved_at", admin.EmptyFieldListFilter)]
    search_fields = ["=reference"]
    list_select_related = ["top_up"]
    ordering = ["-id"]
    actions_detail = ["resolve"]
    amount = usd_column("amount_nanos", "Amount")

    def offers(self, request: HttpRequest, row: PaymentBreak, button: str) -> bool:
        return row.resolved_at is None

    @detail_action("Resolve", permission="billing.change_paymentbreak", url_path="resolve")
    def resolve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row: PaymentBreak = self.row_or_404(request, object_id)
        form = NoteForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            note = form.cleaned_data["resolution"]
            if resolve_payment_break(row, resolution=note, actor=str(request.user)):
                self.log_change(request, row, f"Resolved: {note}")
                messages.success(request, "Resolved.")
            else:
                messages.info(request, "It was resolved before.")
            return redirect(reverse("admin:billing_paymentbreak_change", args=[row.pk]))
        return operator_form(
            self, request, row=row, title=f"Resolve {row}", text=row.detail, form=form, submit="Resolve"
        )


@admin.register(AutomaticTopUp)
class AutomaticTopUpAdmin(ReadOnlyAdmin):
    list_display = [
        "organization",
        "is_on",
        "threshold",
        "amount",
        "method_label",
        "failures",
        "suspended_at",
        "reason",
    ]
    list_filter = ["is_on", ("suspended_at", admin.EmptyFieldListFilter)]
    list_select_related = ["organization"]
    search_fields = ["=organization__slug"]
    threshold = usd_column("threshold_nanos", "Threshold")
    amount = usd_column("amount_nanos", "Amount")


@admin.register(RecurringCredit)
class RecurringCreditAdmin(ReadOnlyAdmin):
    list_display = ["organization", "reason", "amount", "first_month", "last_month", "created_by"]
    list_select_related = ["organization"]
    search_fields = ["=organization__slug", "reason"]
    ordering = ["-id"]
    actions_detail = ["end"]
    amount = usd_column("amount_nanos", "Amount")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_recurringcredit")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = RecurringCreditForm(
            request.POST or None,
            initial={"form_id": uuid.uuid4(), "organization": request.GET.get("organization", "")},
        )
        if request.method == "POST" and form.is_valid() and _include(request, form):
            return redirect(reverse("admin:billing_recurringcredit_changelist"))
        return operator_form(
            self,
            request,
            row=None,
            title="Include an amount each month",
            text=f"It is promotional credit that ends with its month (UTC). {say_bound(request)}",
            form=form,
            submit="Include",
        )

    def offers(self, request: HttpRequest, row: RecurringCredit, button: str) -> bool:
        return row.last_month is None or row.last_month > timezone.now().date()

    @detail_action("End", permission="billing.change_recurringcredit", url_path="end")
    def end(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row: RecurringCredit = self.row_or_404(request, object_id)

        def do() -> None:
            end_monthly(row)
            self.log_change(request, row, f"Ended on {timezone.now():%Y-%m-%d}")
            messages.success(request, "This month is its last.")

        return ask_first(
            self,
            request,
            row,
            do,
            title=f"End {row}?",
            text="This month is its last. Credit that was given stays until it ends.",
            submit="End",
            is_dangerous=True,
        )


def _include(request: HttpRequest, form: RecurringCreditForm) -> bool:
    """What counts is all its months; one without an end counts as a year."""
    values = form.cleaned_data
    first, last = values["first_month"].replace(day=1), values["last_month"]
    months = (last.year - first.year) * 12 + last.month - first.month + 1 if last else MONTHS_COUNTED_WITHOUT_END
    return ask_or_tell(
        request,
        form,
        Approval.Kind.RECURRING_CREDIT,
        organization=values["organization"],
        terms={
            "amount_nanos": values["amount_nanos"],
            "first_month": first.isoformat(),
            "last_month": last.replace(day=1).isoformat() if last else None,
        },
        amount_nanos=max(0, values["amount_nanos"] * months),
        done="It is given from its first month on, within minutes.",
    )
