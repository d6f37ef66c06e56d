"""What is kept of an organization or a person: for how long, all of it as a file, and its end. Each is in the audit."""

from functools import partial
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminTextInputWidget

from accounts.audit_entries import record
from accounts.models import Organization, User
from billing.admission.errors import AdmissionUnavailableError
from billing.ledger.statements import posted_nanos
from billing.models import DataRetention
from billing.money import format_usd
from billing.privacy.erasure import CannotEraseError, erase_organization, erase_person, tables_with
from billing.privacy.export import export_person
from billing.privacy.own_export import MAX_ROWS_OF_KIND
from billing.privacy.places import Fate
from billing.privacy.retention import MAX_DAYS, MIN_DAYS, choose_retention
from operations.admin.base import OperatorAdmin, ask_first, detail_action, operator_form
from operations.asking import operator_of
from pages.exports import ROWS, as_file, send_export
from pages.forms import Form
from pages.publishing import publish_or_tell

# No role has these: they are the superusers'.
OF_ORGANIZATIONS, OF_PEOPLE = "accounts.delete_organization", "accounts.delete_user"


class RetentionForm(Form):
    days = forms.IntegerField(
        required=False,
        min_value=MIN_DAYS,
        max_value=MAX_DAYS,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="Empty: they are kept.",
    )


class ErasureForm(Form):
    """Sure is who types what it is called."""

    typed = forms.CharField(max_length=254, widget=UnfoldAdminTextInputWidget)

    def __init__(self, *args: Any, called: str, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fields["typed"].label = f"Type {called} to erase it"
        self._called = called

    def clean_typed(self) -> str:
        typed: str = self.cleaned_data["typed"]
        if typed.strip() != self._called:
            raise forms.ValidationError(f"This is not {self._called}.")
        return typed


if TYPE_CHECKING:
    Base = OperatorAdmin
else:
    Base = object


class OrganizationPrivacy(Base):
    """Buttons of the organization's page."""

    @detail_action("Keep details for", permission="accounts.change_organization", url_path="keep-details")
    def keep_details(self, request: HttpRequest, object_id: str) -> HttpResponse:
        organization: Organization = self.row_or_404(request, object_id)
        kept = DataRetention.objects.filter(organization=organization).values_list("details_days", flat=True).first()
        form = RetentionForm(request.POST or None, initial={"days": kept})
        if request.method == "POST" and form.is_valid():
            days = form.cleaned_data["days"]
            choose_retention(organization, details_days=days, actor=str(operator_of(request)))
            messages.success(request, f"Details are kept for {days} days." if days else "Details are kept.")
            return redirect(reverse("admin:accounts_organization_change", args=[organization.pk]))
        return operator_form(
            self,
            request,
            row=organization,
            title=f"For how many days are details of {organization.name} kept?",
            text="End users, tags, sessions and clients of requests. What is older is erased within the hour, for good;"
            " usage records and the ledger stay.",
            form=form,
            submit="Keep them so long",
            is_dangerous=True,
        )

    @detail_action("Export", permission=OF_ORGANIZATIONS, url_path="export")
    def export(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        organization: Organization = self.row_or_404(request, object_id)
        return ask_first(
            self,
            request,
            organization,
            partial(send_export, organization),
            title=f"Export what is kept of {organization.name}?",
            text="You get the file that its owners can get: a line of JSON for each row, without secrets, at most"
            f" {MAX_ROWS_OF_KIND:,} of a kind (manage.py export_data has no such bound). Its owners see it.",
            submit="Export",
        )

    @detail_action("Erase", permission=OF_ORGANIZATIONS, url_path="erase")
    def erase(self, request: HttpRequest, object_id: str) -> HttpResponse:
        organization: Organization = self.row_or_404(request, object_id)
        form = ErasureForm(request.POST or None, called=organization.slug)
        if request.method == "POST" and form.is_valid():
            try:
                erase_organization(organization)
            except (CannotEraseError, AdmissionUnavailableError) as error:
                form.add_error(None, f"{error} Nothing was erased.")
            else:
                record("erased", subject_table="accounts_organization", subject_id=organization.pk)
                publish_or_tell(request, done="It is erased.", what_waits="It is erased.")
                return redirect(reverse("admin:accounts_organization_change", args=[organization.pk]))
        fates = (f"{fate}: {', '.join(tables_with(fate))}" for fate in Fate)
        return operator_form(
            self,
            request,
            row=organization,
            title=f"Erase {organization.name}?",
            text="\n".join(
                [
                    f"Its balance is {format_usd(posted_nanos(organization))} USD. The ledger and documents stay,"
                    " without its name. It cannot be undone.",
                    *fates,
                ]
            ),
            form=form,
            submit="Erase for good",
            is_dangerous=True,
        )


class PersonPrivacy(Base):
    """Buttons of a person's page."""

    @detail_action("Export", permission=OF_PEOPLE, url_path="export")
    def export(self, request: HttpRequest, object_id: str) -> HttpResponseBase:
        person: User = self.row_or_404(request, object_id)

        def do() -> HttpResponse:
            record("exported", subject_table="accounts_user", subject_id=person.pk)
            with transaction.atomic():  # Rows are read through a cursor of Postgres', and agree with each other.
                text = "".join(f"{line}\n" for line in export_person(person))
            return as_file(HttpResponse(text, content_type=ROWS), f"person-{person.pk}")

        return ask_first(
            self,
            request,
            person,
            do,
            title=f"Export what is kept of {person.email}?",
            text="A line of JSON for each row, without secrets.",
            submit="Export",
        )

    @detail_action("Erase", permission=OF_PEOPLE, url_path="erase")
    def erase(self, request: HttpRequest, object_id: str) -> HttpResponse:
        person: User = self.row_or_404(request, object_id)
        form = ErasureForm(request.POST or None, called=person.email)
        if request.method == "POST" and form.is_valid():
            try:
                erase_person(person)
            except CannotEraseError as error:
                form.add_error(None, f"{error} Nothing was erased.")
            else:
                record("erased", subject_table="accounts_user", subject_id=person.pk)
                messages.success(request, f"Erased. What was done stands as done by person {person.pk}.")
                return redirect(reverse("admin:accounts_user_change", args=[person.pk]))
        return operator_form(
            self,
            request,
            row=person,
            title=f"Erase {person.email}?",
            text="Name, address, password, sessions, memberships and mail end; where they did something,"
            f" “person {person.pk}” stands from then on. It cannot be undone.",
            form=form,
            submit="Erase for good",
            is_dangerous=True,
        )
