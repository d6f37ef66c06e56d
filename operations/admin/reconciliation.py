"""Breaks of reconciliation: an operator takes one over, and resolves it by a note or the posting that put it right."""

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from accounts.models import User
from billing.models import ProviderReport, ProviderReportLine, ReconciliationBreak, ReconciliationRun, Upstream
from billing.reconciliation.breaks import ResolutionError, resolve, take_over
from operations.admin.base import (
    QuestionForm,
    ReadOnlyAdmin,
    ReadOnlyInline,
    detail_action,
    operator_form,
    usd_column,
)
from operations.admin.filters import known_values
from pages.forms import Form

MAY_RESOLVE = "billing.change_reconciliationbreak"


class ResolveForm(Form):
    note = forms.CharField(max_length=1000, widget=UnfoldAdminTextInputWidget, help_text="What it was. It is kept.")
    transaction_id = forms.IntegerField(
        required=False,
        min_value=1,
        max_value=2**63 - 1,
        label="Ledger transaction",
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="The number of the posting that put it right. Empty: nothing had to be posted.",
    )


@admin.register(ReconciliationBreak)
class ReconciliationBreakAdmin(ReadOnlyAdmin):
    list_display = ["id", "source", "day", "organization", "cents", "state", "owner", "found_at", "last_seen_at"]
    list_filter = ["state", "source", ("owner", admin.EmptyFieldListFilter)]
    list_select_related = ["organization", "owner"]
    search_fields = ["=organization__slug", "=subject"]
    ordering = ["-id"]
    actions_detail = ["take_over", "resolve"]
    amount = usd_column("amount_nanos", "Amount, exactly")
    fields = [
        "source",
        "subject",
        "day",
        "organization",
        "detail",
        "cents",
        "amount",
        "state",
        "owner",
        "found_at",
        "last_seen_at",
        "gone_at",
        "resolution",
        "note",
        "ledger_transaction",
        "resolved_by",
        "resolved_at",
    ]
    readonly_fields = ["cents", "amount"]

    @admin.display(description="Amount, cents", ordering="amount_cents")
    def cents(self, row: ReconciliationBreak) -> str:
        return f"{row.amount_cents:+,}" if row.amount_cents else "0"

    def offers(self, request: HttpRequest, row: ReconciliationBreak, button: str) -> bool:
        return row.state == ReconciliationBreak.State.OPEN

    @detail_action("Take over", permission=MAY_RESOLVE, url_path="take-over")
    def take_over(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.row_or_404(request, object_id)
        form = QuestionForm(request.POST or None)
        if request.method == "POST":
            assert isinstance(request.user, User)  # noqa: S101  An operator has signed in.
            try:
                take_over(row, owner=request.user)
            except ResolutionError as error:
                messages.error(request, str(error))
            else:
                self.log_change(request, row, "Taken over.")
                messages.success(request, "You see to it.")
            return _back_to(object_id)
        text = f"{row.detail} You are shown as the one who sees to it."
        return operator_form(
            self, request, row=row, title="See to this break?", text=text, form=form, submit="Take over"
        )

    @detail_action("Resolve", permission=MAY_RESOLVE, url_path="resolve")
    def resolve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.row_or_404(request, object_id)
        form = ResolveForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            values = form.cleaned_data
            try:
                resolve(
                    row, actor=str(request.user), note=values["note"], transaction_id=values["transaction_id"] or None
                )
            except ResolutionError as error:
                form.add_error(None, str(error))
            else:
                self.log_change(request, row, f"Resolved: {values['note']}")
                messages.success(request, "Resolved.")
                return _back_to(object_id)
        return operator_form(
            self,
            request,
            row=row,
            title="Resolve this break",
            text=f"{row.detail} It is opened again if it goes away and comes back, or comes with another amount.",
            form=form,
            submit="Resolve",
        )


@admin.register(ReconciliationRun)
class ReconciliationRunAdmin(ReadOnlyAdmin):
    list_display = ["id", "source", "day", "started_at", "ended_at", "compared", "found", "note"]
    list_filter = ["source"]
    ordering = ["-id"]


class LineInline(ReadOnlyInline):
    model = ProviderReportLine
    fields = [
        "upstream_model",
        "input_tokens",
        "output_tokens",
        "cache_write_5m_tokens",
        "cache_write_1h_tokens",
        "cache_read_tokens",
        "web_searches",
        "cost",
    ]
    readonly_fields = ["cost"]
    cost = usd_column("cost_nanos", "Cost")


def upstream_names() -> list[str]:
    return list(Upstream.objects.order_by("name").values_list("name", flat=True))


@admin.register(ProviderReport)
class ProviderReportAdmin(ReadOnlyAdmin):
    list_display = ["upstream", "day", "kind", "origin", "imported_at"]
    list_filter = ["kind", known_values("upstream", "upstream", upstream_names)]
    ordering = ["-day", "upstream", "kind"]
    inlines = [LineInline]


def _back_to(object_id: str) -> HttpResponse:
    return redirect(reverse("admin:billing_reconciliationbreak_change", args=[object_id]))
