"""Breaks of reconciliation: an operator takes one over, and resolves it by a note or the posting that put it right."""

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.text import Truncator
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from accounts.models import User
from billing.models import (
    ProviderReport,
    ProviderReportLine,
    ReconciliationBreak,
    ReconciliationRun,
    ReconciliationSource,
    Upstream,
)
from billing.reconciliation.breaks import ResolutionError, resolve, take_over
from operations.admin.base import (
    ReadOnlyAdmin,
    ReadOnlyInline,
    ask_first,
    detail_action,
    operator_form,
    usd_column,
)
from operations.admin.filters import known_values
from pages.forms import Form

MAY_RESOLVE = "billing.change_reconciliationbreak"
MAX_DETAIL_LISTED = 120
WHAT_TO_DO = {
    ReconciliationSource.LEDGER: "Our own rows contradict each other: a fault of ours, or somebody's hand in the"
    " database. Nothing is corrected by itself. Take it over, and have an engineer find the cause; manage.py"
    " check_ledger lists all that is broken. What waits in quarantine is among it, and goes when that is resolved.",
    ReconciliationSource.ADMISSION: "Redis enforces something else than Postgres says: the organization can spend too"
    " much, or too little. manage.py rebuild_admission --all loads it anew; clients get 503 for a few seconds.",
    ReconciliationSource.ROLL_UPS: "Pages and budgets show something else than the records say; the records are what is"
    " billed. A fault of ours: take it over, and have an engineer find the cause.",
    ReconciliationSource.PROVIDER_USAGE: "The provider counted other tokens than our records of the day. Usage that"
    " settled late goes away within three days; else look for requests at the provider that we have no record of.",
    ReconciliationSource.PROVIDER_COST: "The provider charges another amount than we expect. Where its price of a model"
    " has changed, draft a successor of our upstream price; else ask the provider.",
    ReconciliationSource.PAYMENTS: "Look at the payment at its provider. What was paid and not credited is credited by"
    " the job payment_lists, or by a grant of paid credit; what was credited and not paid, by an adjustment.",
}


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
    list_display = ["what", "source", "day", "organization", "cents", "state", "owner", "last_seen_at"]
    shown_once_set = ["day", "organization", "owner", "gone_at", "resolution", "note", "ledger_transaction"]
    shown_once_set += ["resolved_by", "resolved_at"]
    list_filter = ["state", "source", ("owner", admin.EmptyFieldListFilter)]
    list_select_related = ["organization", "owner"]
    search_fields = ["=organization__slug", "=subject"]
    ordering = ["-id"]
    actions_detail = ["take_over", "resolve"]
    amount = usd_column("amount_nanos", "Amount, exactly")
    fields = [
        "detail",
        "what_to_do",
        "source",
        "day",
        "organization",
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
    readonly_fields = ["what_to_do", "cents", "amount"]

    @admin.display(description="What differs", ordering="id")
    def what(self, row: ReconciliationBreak) -> str:
        return Truncator(row.detail).chars(MAX_DETAIL_LISTED)

    @admin.display(description="What to do")
    def what_to_do(self, row: ReconciliationBreak) -> str:
        return WHAT_TO_DO[ReconciliationSource(row.source)]

    @admin.display(description="Amount, cents", ordering="amount_cents")
    def cents(self, row: ReconciliationBreak) -> str:
        return f"{row.amount_cents:+,}" if row.amount_cents else "0"

    def offers(self, request: HttpRequest, row: ReconciliationBreak, button: str) -> bool:
        return row.state == ReconciliationBreak.State.OPEN

    @detail_action("Take over", permission=MAY_RESOLVE, url_path="take-over")
    def take_over(self, request: HttpRequest, object_id: str) -> HttpResponse:
        row = self.row_or_404(request, object_id)

        def do() -> None:
            assert isinstance(request.user, User)  # noqa: S101  An operator has signed in.
            try:
                take_over(row, owner=request.user)
            except ResolutionError as error:
                messages.error(request, str(error))
            else:
                self.log_change(request, row, "Taken over.")
                messages.success(request, "You see to it.")

        text = f"{row.detail} You are shown as the one who sees to it."
        return ask_first(self, request, row, do, title="See to this break?", text=text, submit="Take over")

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
