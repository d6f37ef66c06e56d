"""What an owner does who leaves with the organization: take its data along, close it, and have it deleted."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from accounts.access import Access, Permission
from accounts.closing import WrongNameError, close_organization
from billing.ledger.statements import posted_nanos
from billing.privacy.deletion import CannotDeleteError, find_deletion, request_deletion, withdraw_deletion
from billing.privacy.own_export import KINDS, MAX_ROWS_OF_KIND
from console.entrance import console_page
from console.forms.organization import ClosingForm, DeletionForm
from pages.dates import day_text
from pages.exports import send_export
from pages.publishing import publish_or_tell

WRONG_NAME = "This is not its name."


@require_http_methods(["GET", "POST"])
@console_page(Permission.CLOSE_ORGANIZATION)
def organization_export(request: HttpRequest, access: Access) -> HttpResponse | StreamingHttpResponse:
    """Say what an export holds, and send it: a line of JSON for each row. The audit knows of it."""
    organization = access.organization
    if request.method != "POST":
        context = {"kinds": list(KINDS), "most": MAX_ROWS_OF_KIND}
        return render(request, "console/organization_export.html", context)
    return send_export(organization)


@require_http_methods(["GET", "POST"])
@console_page(Permission.CLOSE_ORGANIZATION)
def organization_close(request: HttpRequest, access: Access) -> HttpResponse:
    """Say what ends and what stays, and close the organization of which the name was typed."""
    form = ClosingForm(request.POST if request.method == "POST" else None)
    if request.method == "POST" and form.is_valid():
        try:
            close_organization(access.organization, name=form.cleaned_data["name"], closed_by=access.user)
        except WrongNameError:
            form.add_error("name", WRONG_NAME)
        else:
            publish_or_tell(request, done="The organization is closed: every gateway refuses its requests.")
            return redirect("documents", slug=access.organization.slug)
    context = {
        "form": form,
        "live_keys": access.organization.keys.filter(revoked_at=None).count(),
        "posted_nanos": posted_nanos(access.organization),
    }
    return render(request, "console/organization_close.html", context, status=422 if request.method == "POST" else 200)


@require_http_methods(["GET", "POST"])
@console_page(Permission.CLOSE_ORGANIZATION)
def organization_delete(request: HttpRequest, access: Access) -> HttpResponse:
    """Say what goes, what stays and when, and take the request of whoever typed the name of a closed organization."""
    organization = access.organization
    left_nanos = posted_nanos(organization)
    form = DeletionForm(request.POST if request.method == "POST" else None, has_balance=left_nanos > 0)
    if request.method == "POST" and form.is_valid():
        try:
            made = request_deletion(organization, name=form.cleaned_data["name"], actor=access.user.email)
        except WrongNameError:
            form.add_error("name", WRONG_NAME)
        except CannotDeleteError as error:
            form.add_error(None, str(error))
        else:
            messages.success(request, f"It will be deleted after {day_text(made.erase_after)}. Its owners get a mail.")
            return redirect("organization_delete", slug=organization.slug)
    context = {"form": form, "deletion": find_deletion(organization), "left_nanos": left_nanos}
    return render(request, "console/organization_delete.html", context, status=422 if request.method == "POST" else 200)


@require_POST
@console_page(Permission.CLOSE_ORGANIZATION)
def organization_delete_withdraw(request: HttpRequest, access: Access) -> HttpResponse:
    """Take the request back: the organization stays closed, and is kept."""
    if withdraw_deletion(access.organization, actor=access.user.email):
        messages.success(request, "It will not be deleted.")
    else:
        messages.info(request, "Nobody has asked for its deletion.")
    return redirect("organization_delete", slug=access.organization.slug)
