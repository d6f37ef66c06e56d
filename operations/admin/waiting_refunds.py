"""A refund of a payment to which the provider gave no answer: what a person decides, once its list has been asked."""

from typing import TYPE_CHECKING

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.models import PaymentRefund, TopUp
from billing.money import say_usd
from billing.payments.provider import PaymentProviderError, PaymentRefusedError
from billing.payments.refunds import complete_refund, give_up_refund, refunds_that_wait
from operations.admin.base import OperatorAdmin, ask_first, detail_action, operator_form
from operations.asking import operator_of
from pages.forms import Form

if TYPE_CHECKING:
    Base = OperatorAdmin
else:
    Base = object

NONE_WAITS = "No refund of this payment waits for an answer."


class GiveUpForm(Form):
    reason = forms.CharField(
        max_length=200, widget=UnfoldAdminTextInputWidget, help_text="What the provider says. It is kept."
    )


class WaitingRefunds(Base):
    """Buttons of a top-up's page."""

    def offers(self, request: HttpRequest, row: TopUp, button: str) -> bool:
        return _waiting(row) is not None if button in ("ask_again", "give_up") else super().offers(request, row, button)

    @detail_action("Ask for the refund again", permission="billing.change_topup", url_path="ask-again")
    def ask_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        top_up: TopUp = self.row_or_404(request, object_id)
        refund = _waiting(top_up)
        if refund is None:
            return _told(request, top_up, NONE_WAITS)

        def do() -> None:
            try:
                complete_refund(refund)
            except PaymentRefusedError as error:
                messages.error(request, f"{top_up.provider} said no: {error}")
            except PaymentProviderError as error:
                messages.error(request, f"There is no answer yet: {error}")
            else:
                self.log_change(request, top_up, f"Asked again for the refund of {say_usd(refund.amount_nanos)}")
                messages.success(request, f"{say_usd(refund.amount_nanos)} are paid back.")

        return ask_first(
            self,
            request,
            top_up,
            do,
            title=f"Ask again for the refund of {say_usd(refund.amount_nanos)}?",
            text=f"{_since(refund)} The provider's list is asked first: what is in it is not paid a second time."
            " Look at the payment there before you go on.",
            submit="Ask again",
        )

    @detail_action("Give the refund up", permission="billing.change_topup", url_path="give-up")
    def give_up(self, request: HttpRequest, object_id: str) -> HttpResponse:
        top_up: TopUp = self.row_or_404(request, object_id)
        refund = _waiting(top_up)
        if refund is None:
            return _told(request, top_up, NONE_WAITS)
        form = GiveUpForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            try:
                ended = give_up_refund(refund, reason=form.cleaned_data["reason"], actor=str(operator_of(request)))
            except PaymentProviderError as error:
                return _told(request, top_up, f"It cannot be given up before the provider has been asked: {error}")
            if ended.done_at is None:
                self.log_change(request, top_up, f"The refund is over: {ended.refused}")
                return _told(request, top_up, f"It is over, and nothing was paid back: {ended.refused}")
            return _told(request, top_up, "The provider's list has it: it was paid back after all.")
        return operator_form(
            self,
            request,
            row=top_up,
            title=f"Give the refund of {say_usd(refund.amount_nanos)} up?",
            text=f"{_since(refund)} The provider's list is asked first. Only what is not in it is given up; then other"
            " refunds of this payment can be made. Should the provider make it all the same, it is posted once that is"
            " told.",
            form=form,
            submit="Give it up",
            is_dangerous=True,
        )


def _waiting(top_up: TopUp) -> PaymentRefund | None:
    return refunds_that_wait().filter(top_up=top_up).select_related("top_up__organization").first()


def _since(refund: PaymentRefund) -> str:
    return (
        f"{refund.created_by} asked for it at {refund.created_at:%Y-%m-%d %H:%M:%S} UTC ({refund.reason}), and"
        f" {refund.top_up.provider} gave no answer."
    )


def _told(request: HttpRequest, top_up: TopUp, text: str) -> HttpResponse:
    messages.info(request, text)
    return redirect(reverse("admin:billing_topup_change", args=[top_up.pk]))
