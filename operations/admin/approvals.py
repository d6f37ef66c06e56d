"""Money by two people: what waits, what it would post, and the buttons of the second person."""

from collections.abc import Callable

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.approvals.book import REFUSALS, ApprovalError, approve, preview, refuse
from billing.approvals.kinds import describe
from billing.approvals.notices import APPROVE_PERMISSION
from billing.approvals.rerating_work import count_posted
from billing.models import Approval
from billing.payments.provider import PaymentProviderError
from operations.admin.base import ReadOnlyAdmin, ask_first, detail_action, operator_form, usd_column
from operations.asking import NO_ANSWER, operator_of
from operations.reratings import call_for_posting
from pages.forms import Form
from pages.publishing import publish_or_tell


class RefusalForm(Form):
    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Who asked reads it.")


@admin.register(Approval)
class ApprovalAdmin(ReadOnlyAdmin):
    list_display = ["number", "kind", "whom", "change", "amount", "standing", "asked_by", "decided_by", "asked_at"]
    list_display_links = ["number"]
    list_filter = ["state", "kind"]
    list_select_related = ["organization", "asked_by", "decided_by"]
    search_fields = ["=organization__slug", "=asked_by__email"]
    search_help_text = "The slug of an organization, or the e-mail address of who asked."
    ordering = ["-id"]
    fields = [
        "kind",
        "whom",
        "change",
        "amount",
        "reason",
        "would_post",
        "standing",
        "asked_by",
        "asked_at",
        "shell_user",
        "expires_at",
        "decided_by",
        "decided_at",
        "decision",
        "ledger_transaction",
        "posted",
    ]
    readonly_fields = ["whom", "change", "amount", "would_post", "standing", "asked_at", "posted"]
    shown_once_set = ["shell_user", "decided_by", "decided_at", "decision", "ledger_transaction"]
    actions_detail = ["approve", "refuse"]
    amount = usd_column("amount_nanos", "Counts as")

    @admin.display(description="Number", ordering="id")
    def number(self, approval: Approval) -> str:
        return f"#{approval.pk}"

    @admin.display(description="Organization", ordering="organization__name")
    def whom(self, approval: Approval) -> SafeString | str:
        if approval.organization is None:
            return "Whoever redeems" if approval.kind == Approval.Kind.CODES else "All whom it concerns"
        url = reverse("admin:accounts_organization_change", args=[approval.organization_id])
        return format_html('<a href="{}">{}</a>', url, approval.organization.name)

    @admin.display(description="Change")
    def change(self, approval: Approval) -> str:
        return describe(approval)

    @admin.display(description="State", ordering="state")
    def standing(self, approval: Approval) -> str:
        if approval.state == Approval.State.WAITING:
            return "Waiting" if approval.is_open else "Expired"
        alone = approval.state == Approval.State.APPLIED and approval.decided_by_id is None
        return "Applied by one person" if alone else approval.get_state_display()

    @admin.display(description="Would post now")
    def would_post(self, approval: Approval) -> SafeString | str:
        if not approval.is_open:
            return "Nothing: it is decided."
        try:
            lines = preview(approval)
        except REFUSALS as error:
            return f"It cannot be applied as things are: {error}"
        if not lines:
            return "No posting."
        return format_html("<ul>{}</ul>", format_html_join("", "<li>{}</li>", ((line,) for line in lines)))

    @admin.display(description="Posted")
    def posted(self, approval: Approval) -> str:
        if approval.kind != Approval.Kind.RERATING or approval.state != Approval.State.APPLIED:
            return "-"
        count = f"{count_posted(approval):,} of {approval.terms['requests']:,} requests"
        if approval.finished_at is None:
            return f"{count} so far; the job reratings goes on"
        return f"{count}, the last at {approval.finished_at:%Y-%m-%d %H:%M:%S} UTC"

    def offers(self, request: HttpRequest, row: Approval, button: str) -> bool:
        """Nobody decides what is decided, or approves what they asked for; their own they withdraw."""
        is_own = row.asked_by_id == operator_of(request).pk
        may_refuse = is_own or operator_of(request).has_perm(APPROVE_PERMISSION)
        return row.is_open and (not is_own if button == "approve" else may_refuse)

    @detail_action("Approve", permission="billing.change_approval", url_path="approve")
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        approval: Approval = self.row_or_404(request, object_id)

        def do() -> HttpResponse:
            return self._decide(request, approval, lambda: approve(approval, by=operator_of(request)), "Approved")

        whom = f" for {approval.organization}" if approval.organization else ""
        return ask_first(
            self,
            request,
            approval,
            do,
            title=f"Approve: {approval.get_kind_display().lower()}{whom}?",
            text=f"{describe(approval)}. {approval.asked_by} asks for it: {approval.reason}. {_when(approval)}",
            submit="Approve and apply",
        )

    @detail_action("Refuse or withdraw", permission="billing.view_approval", url_path="refuse")
    def refuse(self, request: HttpRequest, object_id: str) -> HttpResponse:
        approval: Approval = self.row_or_404(request, object_id)
        operator = operator_of(request)
        is_own = approval.asked_by_id == operator.pk
        form = RefusalForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            reason = form.cleaned_data["reason"]
            word = "Withdrawn" if is_own else "Refused"
            return self._decide(request, approval, lambda: refuse(approval, by=operator, reason=reason), word)
        return operator_form(
            self,
            request,
            row=approval,
            title=f"{'Withdraw' if is_own else 'Refuse'} {approval}?",
            text=f"{describe(approval)}. Nothing is applied, and it cannot be approved any more.",
            form=form,
            submit="Withdraw" if is_own else "Refuse",
            is_dangerous=True,
        )

    def _decide(
        self, request: HttpRequest, approval: Approval, decide: Callable[[], Approval], word: str
    ) -> HttpResponse:
        try:
            decided = decide()
        except (*REFUSALS, ApprovalError) as error:
            messages.error(request, str(error) or "It cannot be applied.")
        except PaymentProviderError:
            messages.warning(request, NO_ANSWER)
        else:
            call_for_posting(decided)
            publish_or_tell(request, done=f"{word}.", what_waits=f"{word}.")
        return redirect(reverse("admin:billing_approval_change", args=[approval.pk]))


def _when(approval: Approval) -> str:
    return "A worker posts it." if approval.kind == Approval.Kind.RERATING else "It is applied at once."
