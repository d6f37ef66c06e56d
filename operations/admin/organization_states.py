"""Suspending, reopening and closing an organization, and looking at its console for support."""

from typing import TYPE_CHECKING

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminTextInputWidget

from accounts.models import Organization
from accounts.organizations import change_organization
from billing.admission.balances import read_balance
from billing.models import AutomaticTopUp
from billing.privacy.deletion import withdraw_deletion
from operations.admin.base import OperatorAdmin, detail_action, operator_form
from pages.forms import Form
from pages.publishing import publish_or_tell
from pages.support_look import LASTS, begin_look

Status = Organization.Status


class StateForm(Form):
    reason = forms.CharField(
        max_length=300, widget=UnfoldAdminTextInputWidget, help_text="For operators. It is kept, and in the audit."
    )


class LookForm(Form):
    reason = forms.CharField(
        max_length=300,
        widget=UnfoldAdminTextInputWidget,
        help_text="The organization's owners read it in their audit: a ticket, or what was asked for.",
    )


if TYPE_CHECKING:
    Base = OperatorAdmin
else:
    Base = object


class OrganizationStates(Base):
    """Buttons of the organization's page."""

    def offers(self, request: HttpRequest, row: Organization, button: str) -> bool:
        becomes = {"suspend": Status.SUSPENDED, "reopen": Status.ACTIVE, "close": Status.CLOSED}.get(button)
        if button == "suspend" and row.status == Status.CLOSED:
            return False
        if button == "erase":
            return row.status == Status.CLOSED
        return row.status != becomes

    @detail_action("Suspend", permission="accounts.suspend_organization", url_path="suspend")
    def suspend(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = "Its requests are refused (402, organization_suspended) until it is reopened."
        return self._set(request, object_id, Status.SUSPENDED, "Suspend", text)

    @detail_action("Reopen", permission="accounts.suspend_organization", url_path="reopen")
    def reopen(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._set(request, object_id, Status.ACTIVE, "Reopen", "Its keys work again at once.")

    @detail_action("Close", permission="accounts.change_organization", url_path="close")
    def close(self, request: HttpRequest, object_id: str) -> HttpResponse:
        text = "Its requests are refused (402) for good, unless it is reopened. Its ledger and documents stay."
        return self._set(request, object_id, Status.CLOSED, "Close", text)

    @detail_action("Look at its console", permission="accounts.view_as_member", url_path="look")
    def look(self, request: HttpRequest, object_id: str) -> HttpResponse:
        organization: Organization = self.row_or_404(request, object_id)
        form = LookForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            begin_look(request, organization, reason=form.cleaned_data["reason"])
            return redirect(reverse("overview", args=[organization.slug]))
        return operator_form(
            self,
            request,
            row=organization,
            title=f"Look at the console of {organization.name}",
            text=f"You see for {LASTS.seconds // 60} minutes what a viewer of this organization sees: usage and"
            " requests, no keys, no payments. You can change nothing, and its owners see that you were there.",
            form=form,
            submit="Look at its console",
        )

    def _set(self, request: HttpRequest, object_id: str, status: Status, verb: str, text: str) -> HttpResponse:
        organization: Organization = self.row_or_404(request, object_id)
        form = StateForm(request.POST or None)
        if request.method == "POST" and form.is_valid():
            fields = {"status": status, "status_reason": form.cleaned_data["reason"]}
            if organization.status != status:
                change_organization(organization, fields=fields)
            if status != Status.CLOSED:  # Its owner wanted the closed one deleted; closed again, they say so again.
                withdraw_deletion(organization, actor=request.user.get_username())
            done = f"{organization} is {status.label.lower()}."
            publish_or_tell(request, done=done, what_waits=done)
            return redirect(reverse("admin:accounts_organization_change", args=[organization.pk]))
        cut_off = f" {_what_is_cut_off(organization)}" if status != Status.ACTIVE else ""
        return operator_form(
            self,
            request,
            row=organization,
            title=f"{verb} {organization.name}?",
            text=f"It is {organization.get_status_display().lower()} now. {text}{cut_off}",
            form=form,
            submit=f"{verb} organization",
            is_dangerous=status != Status.ACTIVE,
        )


def _what_is_cut_off(organization: Organization) -> str:
    """Say what stops with it, as of now."""
    keys = organization.keys.filter(revoked_at=None).count()
    state = read_balance(organization).state
    running = f"{_count(state.open_requests, 'running request')} end as they would" if state else "running requests end"
    pays = AutomaticTopUp.objects.filter(organization=organization, is_on=True).exists()
    top_up = " Automatic top-up is on: switch it off too, if no more money shall come in." if pays else ""
    people = organization.members.count()
    return (
        f"This cuts off {_count(keys, 'live API key')} within a second; {running} and are billed. The console stays"
        f" open to {_count(people, 'member')}.{top_up}"
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
