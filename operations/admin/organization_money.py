"""What operators do with an organization's money: each asks, and waits for a second person above a bound."""

import uuid
from typing import TYPE_CHECKING, Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from accounts.models import Organization
from billing.approvals.bounds import bound_nanos, moved_alone_nanos
from billing.ledger.book import DEFAULT_PRIORITY
from billing.models import Approval, CreditLot
from billing.money import format_usd
from billing.usage.report import start_of_day
from operations.admin.base import OperatorAdmin, admin_usd_field, detail_action, operator_form
from operations.asking import ask_or_tell, operator_of
from pages.forms import Form

MAX_PRIORITY = 32_767


class AskForm(Form):
    """The reason is required: it stands in the ledger and in the organization's statement."""

    reason = forms.CharField(max_length=500, widget=UnfoldAdminTextInputWidget, help_text="Members see it.")
    # Sent twice, the same form asks once.
    form_id = forms.UUIDField(widget=forms.HiddenInput)


class GrantCreditForm(AskForm):
    amount_nanos = admin_usd_field("Amount, USD", required=True)
    kind = forms.ChoiceField(choices=CreditLot.Kind.choices, widget=UnfoldAdminSelectWidget)
    expires_on = forms.DateField(
        required=False,
        label="Expires",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="At the beginning of this day, UTC. Empty: never.",
    )
    priority = forms.IntegerField(
        initial=DEFAULT_PRIORITY,
        min_value=0,
        max_value=MAX_PRIORITY,
        required=False,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Lower is spent first.",
    )


class AdjustForm(AskForm):
    amount_nanos = admin_usd_field("Amount, USD (below zero takes away)", required=True)
    lot_kind = forms.ChoiceField(
        choices=CreditLot.Kind.choices, widget=UnfoldAdminSelectWidget, label="What an amount above zero becomes"
    )


class CreditLimitForm(AskForm):
    to_nanos = admin_usd_field("New credit limit, USD", required=True)
    from_nanos = forms.IntegerField(widget=forms.HiddenInput)

    def clean_to_nanos(self) -> int:
        nanos: int = self.cleaned_data["to_nanos"]
        if nanos < 0:
            raise forms.ValidationError("A credit limit is not below zero.")
        return nanos


if TYPE_CHECKING:
    Base = OperatorAdmin
else:
    Base = object


class OrganizationMoney(Base):
    """Buttons of the organization's page."""

    @detail_action("Grant credit", permission="billing.add_creditlot", url_path="grant-credit")
    def grant_credit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask(
            request,
            object_id,
            GrantCreditForm,
            initial={"kind": CreditLot.Kind.PROMOTIONAL},
            title="Grant credit to",
            text="Paid credit is money that came in by hand; promotional credit is given away, and never becomes cash.",
            submit="Grant credit",
            ask=_grant,
        )

    @detail_action("Adjust balance", permission="billing.adjust_balance", url_path="adjust-balance")
    def adjust_balance(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._ask(
            request,
            object_id,
            AdjustForm,
            initial={"lot_kind": CreditLot.Kind.PROMOTIONAL},
            title="Adjust the balance of",
            text="Corrects the balance against revenue, up or down. For what a request cost, refund the request.",
            submit="Adjust balance",
            ask=_adjust,
        )

    @detail_action("Change credit limit", permission="billing.change_credit_limit", url_path="credit-limit")
    def change_credit_limit(self, request: HttpRequest, object_id: str) -> HttpResponse:
        organization: Organization = self.row_or_404(request, object_id)
        return self._ask(
            request,
            object_id,
            CreditLimitForm,
            initial={"from_nanos": organization.credit_limit_nanos, "to_nanos": organization.credit_limit_nanos},
            title="Change the credit limit of",
            text=f"How far below zero the balance may go. It is {format_usd(organization.credit_limit_nanos)} USD now.",
            submit="Change credit limit",
            ask=_change_credit_limit,
        )

    def _ask(
        self,
        request: HttpRequest,
        object_id: str,
        form_class: type[AskForm],
        *,
        initial: dict[str, Any],
        title: str,
        text: str,
        submit: str,
        ask: Any,
    ) -> HttpResponse:
        organization: Organization = self.row_or_404(request, object_id)
        form = form_class(request.POST or None, initial={"form_id": uuid.uuid4(), **initial})
        if request.method == "POST" and form.is_valid() and ask(request, organization, form):
            return redirect(reverse("admin:accounts_organization_change", args=[organization.pk]))
        return operator_form(
            self,
            request,
            row=organization,
            title=f"{title} {organization.name}",
            text=f"{text} {say_bound(request)}",
            form=form,
            submit=submit,
        )


def say_bound(request: HttpRequest) -> str:
    """Say how much the operator may still move alone today."""
    operator = operator_of(request)
    bound = bound_nanos(operator)
    if not bound:
        return "Your role moves no money alone: it will wait for a second person."
    left = max(0, bound - moved_alone_nanos(operator))
    return f"You may move {format_usd(left)} of {format_usd(bound)} USD alone today; more waits for a second person."


def _grant(request: HttpRequest, organization: Organization, form: AskForm) -> bool:
    values = form.cleaned_data
    from_day = values["expires_on"]
    amount = values["amount_nanos"]
    return ask_or_tell(
        request,
        form,
        Approval.Kind.GRANT,
        organization=organization,
        terms={
            "amount_nanos": amount,
            "lot_kind": values["kind"],
            "expires_at": start_of_day(from_day).isoformat() if from_day else None,
            "priority": DEFAULT_PRIORITY if values["priority"] is None else values["priority"],
        },
        amount_nanos=abs(amount),
        done=f"Granted {format_usd(amount)} USD.",
    )


def _adjust(request: HttpRequest, organization: Organization, form: AskForm) -> bool:
    amount = form.cleaned_data["amount_nanos"]
    return ask_or_tell(
        request,
        form,
        Approval.Kind.ADJUSTMENT,
        organization=organization,
        terms={"amount_nanos": amount, "lot_kind": form.cleaned_data["lot_kind"]},
        amount_nanos=abs(amount),
        done=f"Adjusted by {format_usd(amount)} USD.",
    )


def _change_credit_limit(request: HttpRequest, organization: Organization, form: AskForm) -> bool:
    before, after = form.cleaned_data["from_nanos"], form.cleaned_data["to_nanos"]
    return ask_or_tell(
        request,
        form,
        Approval.Kind.CREDIT_LIMIT,
        organization=organization,
        terms={"from_nanos": before, "to_nanos": after},
        amount_nanos=max(0, after - before),  # It is applied only where that is still the limit.
        done=f"The credit limit is {format_usd(after)} USD.",
    )
