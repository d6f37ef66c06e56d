"""Asks for a change of money from a form of the admin, and says what became of it."""

from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest

from accounts.models import Organization, User
from billing.approvals.book import REFUSALS, ApprovalError, Asked, ask
from billing.models import Approval
from billing.payments.provider import PaymentProviderError
from operations.reratings import call_for_posting
from pages.publishing import publish_or_tell

NO_ANSWER = "The provider gave no answer. The refund stands, and is asked for again."


def ask_or_tell(
    request: HttpRequest,
    form: forms.Form,
    kind: Approval.Kind,
    *,
    organization: Organization | None,
    terms: Mapping[str, Any],
    amount_nanos: int,
    done: str,
) -> bool:
    """Ask in the name of who is signed in, with `reason` and `form_id` of the form; say that it is done, or waits.

    Returns False when it was refused: the form then says why.
    """
    try:
        asked = ask(
            kind,
            organization=organization,
            terms=terms,
            amount_nanos=amount_nanos,
            reason=form.cleaned_data["reason"],
            asked_by=operator_of(request),
            idempotency_key=f"{kind}:{form.cleaned_data['form_id'].hex}",
        )
    except (*REFUSALS, ApprovalError) as error:
        form.add_error(None, str(error))
        return False
    except PaymentProviderError:
        messages.warning(request, NO_ANSWER)
        return True
    tell(request, asked, done=done)
    return True


def tell(request: HttpRequest, asked: Asked, *, done: str) -> None:
    """Say what became of it."""
    if asked.waits_because:
        messages.warning(request, f"It waits for a second person (#{asked.approval.pk}). {asked.waits_because}")
    else:
        call_for_posting(asked.approval)
        publish_or_tell(request, done=done, what_waits=done)


def operator_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101  the admin lets nobody else in
    return request.user
