"""A window priced again, from the page of the price that was right: first what would change for whom, then asking."""

import uuid
from datetime import UTC, datetime
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.approvals.reratings import (
    MAX_REQUESTS_ON_A_PAGE,
    fits_on_a_page,
    moved_nanos,
    preview_rerating,
    rerating_terms,
)
from billing.corrections.rerating import ReratingError, ReratingPlan, check_plan, plan_rerating
from billing.models import Approval, PriceVersion
from billing.money import format_usd
from operations.admin.base import OperatorAdmin, operator_form
from operations.asking import ask_or_tell
from pages.forms import Form

MAX_REASON_CHARS = 500
TEXT = (
    "Usage records and their debits stay as they are; what differs is posted beside them, organization by organization."
)


class ReratingForm(Form):
    """Sent once it shows what would be posted; sent again unchanged it is asked for."""

    begins_on = forms.DateField(
        label="From",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="The beginning of this day, UTC.",
    )
    ends_on = forms.DateField(
        label="Until",
        widget=UnfoldAdminTextInputWidget(attrs={"type": "date"}),
        help_text="The beginning of this day, UTC: the day itself is not included.",
    )
    reason = forms.CharField(
        max_length=MAX_REASON_CHARS,
        widget=UnfoldAdminTextInputWidget,
        help_text="Why, as the organizations will read it.",
    )
    form_id = forms.UUIDField(widget=forms.HiddenInput)
    shown = forms.CharField(required=False, widget=forms.HiddenInput)


def propose_rerating(model_admin: OperatorAdmin, request: HttpRequest, version: PriceVersion) -> HttpResponse:
    """Show what pricing a window by this version would post; asked for when the same is sent again."""
    form = ReratingForm(request.POST or None, initial={"form_id": uuid.uuid4()})
    text, submit = TEXT, "Show what would be posted"
    if request.method == "POST" and form.is_valid():
        try:
            lines, terms, amount_nanos = _compare(version, form.cleaned_data)
        except ReratingError as error:
            form.add_error(None, str(error))
        else:
            mark = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{version.pk} {terms}"))
            if amount_nanos and form.cleaned_data["shown"] == mark and _ask(request, form, terms, amount_nanos):
                return redirect(reverse("admin:billing_approval_changelist"))
            if not form.errors:
                text = "\n".join(lines)
                submit = "Ask for it" if amount_nanos else submit
                form = ReratingForm(initial={**form.cleaned_data, "shown": mark if amount_nanos else ""})
    return operator_form(
        model_admin,
        request,
        row=version,
        title=f"Price a past window again by {version}",
        text=text,
        form=form,
        submit=submit,
    )


def _compare(version: PriceVersion, values: dict[str, Any]) -> tuple[list[str], dict[str, Any], int]:
    """Return what would be posted in words, the terms, and how much moves. Raises ReratingError."""
    begins, ends = (datetime(day.year, day.month, day.day, tzinfo=UTC) for day in _days(values))
    plan = ReratingPlan(version.language_model, version, begins, ends)
    check_plan(plan)
    if not fits_on_a_page(plan):
        raise ReratingError(
            f"More than {MAX_REQUESTS_ON_A_PAGE:,} requests are too many to price while a page is waited for."
            " Choose fewer days, or ask by manage.py rerate, which shows how far it is; it is approved here."
        )
    differences = plan_rerating(plan)
    terms, amount_nanos = rerating_terms(plan, differences), moved_nanos(differences)
    if not differences:
        return ["Nothing differs."], terms, 0
    total = sum(difference.difference_nanos for difference in differences)
    lines = [
        f"{terms['requests']:,} requests of {terms['organizations']:,} organizations differ, by {format_usd(total)} USD"
        " together. Of each organization: before, after, and what is charged (or with a minus, given back):",
        *preview_rerating(terms),
    ]
    return lines, terms, amount_nanos


def _days(values: dict[str, Any]) -> tuple[Any, Any]:
    return values["begins_on"], values["ends_on"]


def _ask(request: HttpRequest, form: forms.Form, terms: dict[str, Any], amount_nanos: int) -> bool:
    return ask_or_tell(
        request,
        form,
        Approval.Kind.RERATING,
        organization=None,
        terms=terms,
        amount_nanos=amount_nanos,
        done="A worker posts it now.",
    )
