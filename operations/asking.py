"""Asks for a change of money from a form of the admin, and says what became of it."""

import json
import uuid
from collections.abc import Mapping
from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from accounts.models import Organization, User
from billing.approvals.book import REFUSALS, ApprovalError, Asked, ask, preview
from billing.approvals.bounds import needs_second_person
from billing.models import Approval
from billing.payments.provider import PaymentProviderError
from operations.reratings import call_for_posting
from pages.publishing import publish_or_tell

MARK = "shown"
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


def show_first(
    request: HttpRequest,
    form: forms.Form,
    kind: Approval.Kind,
    *,
    organization: Organization,
    terms: Mapping[str, Any],
    amount_nanos: int,
) -> list[str]:
    """Return what a change would post, line by line, until the form says that just this was shown; then nothing.

    The form has a hidden field `shown`, which `mark_of()` fills. Refused, the form says why, and nothing is returned.
    """
    if form.cleaned_data[MARK] == mark_of(terms):
        return []
    approval = Approval(
        kind=kind,
        organization=organization,
        terms=dict(terms),
        amount_nanos=amount_nanos,
        reason=form.cleaned_data["reason"],
        asked_by=operator_of(request),
        idempotency_key=f"{kind}:{form.cleaned_data['form_id'].hex}",
    )
    try:
        lines = preview(approval)
    except REFUSALS as error:
        form.add_error(None, str(error))
        return []
    return ["It would post:", *(f"- {line}" for line in lines), *filter(None, [would_wait(approval)])]


def would_wait(approval: Approval) -> str:
    """Say whether a second person would be needed."""
    reason = needs_second_person(approval.asked_by, approval)
    return f"It will wait for a second person. {reason}" if reason else ""


def mark_of(terms: Mapping[str, Any]) -> str:
    """Return what stands for these terms in a form that has shown what they do."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(dict(terms), sort_keys=True)))


def tell(request: HttpRequest, asked: Asked, *, done: str) -> None:
    """Say what became of it."""
    if asked.waits_because:
        address = reverse("admin:billing_approval_change", args=[asked.approval.pk])
        text = 'It waits for a second person (<a class="underline" href="{}">#{}</a>). {}'
        messages.warning(request, format_html(text, address, asked.approval.pk, asked.waits_because))
    else:
        call_for_posting(asked.approval)
        publish_or_tell(request, done=done, what_waits=done)


def operator_of(request: HttpRequest) -> User:
    assert isinstance(request.user, User)  # noqa: S101  the admin lets nobody else in
    return request.user
