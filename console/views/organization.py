"""What an organization decides for itself: its name, its budgets, whether answers carry their cost, what is kept."""

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from accounts.access import Access, Permission
from accounts.billing_details import change_billing_details, read_billing_details
from accounts.organizations import MAX_FORMER_SLUGS, SlugRefusedError, change_organization
from billing.models import DataRetention
from billing.privacy.deletion import find_deletion
from billing.privacy.retention import choose_retention
from console.entrance import console_page
from console.forms.organization import (
    AddressForm,
    BillingDetailsForm,
    OrganizationSettingsForm,
    RetentionForm,
)
from pages.publishing import publish_or_tell


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_ORGANIZATION)
def organization_settings(request: HttpRequest, access: Access) -> HttpResponse:
    """Change the settings. Rates and the credit limit are the operator's, and only shown."""
    organization = access.organization
    form = OrganizationSettingsForm(request.POST or None, instance=organization)
    if request.method == "POST" and form.is_valid():
        change_organization(organization, fields=form.cleaned_data)
        publish_or_tell(request, done="Settings saved.")
        return redirect("organization_settings", slug=organization.slug)
    context = {
        "form": form,
        "requests_per_minute": organization.requests_per_minute or settings.DEFAULT_REQUESTS_PER_MINUTE,
        "concurrent_requests": organization.concurrent_requests or settings.DEFAULT_CONCURRENT_REQUESTS,
        "base_url": settings.BASE_URL,
    }
    status = 422 if request.method == "POST" else 200
    return render(request, "console/organization_settings.html", context, status=status)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_ORGANIZATION)
def organization_address(request: HttpRequest, access: Access) -> HttpResponse:
    """Change the word for the organization in addresses. Links with those before go on leading here."""
    organization = access.organization
    form = AddressForm(request.POST if request.method == "POST" else None, initial={"slug": organization.slug})
    if request.method == "POST" and form.is_valid():
        try:
            changed = change_organization(organization, fields={"slug": form.cleaned_data["slug"]})
        except SlugRefusedError as error:
            form.add_error("slug", str(error))
        else:
            publish_or_tell(request, done="The address is changed. Links with the one before lead here.")
            return redirect("organization_settings", slug=changed.slug)
    former = organization.former_slugs.values_list("slug", flat=True)
    context = {"form": form, "former": list(former), "most": MAX_FORMER_SLUGS, "base_url": settings.BASE_URL}
    status = 422 if request.method == "POST" else 200
    return render(request, "console/organization_address.html", context, status=status)


@require_http_methods(["GET", "POST"])
@console_page(Permission.SEE_BILLING)
def billing_details(request: HttpRequest, access: Access) -> HttpResponse:
    """Change whom documents are made out to. Documents that were issued keep what they say."""
    details = read_billing_details(access.organization)
    form = BillingDetailsForm(request.POST or None, instance=details)
    if request.method == "POST" and form.is_valid():
        change_billing_details(access.organization, fields=form.cleaned_data)
        messages.success(request, "Billing details saved. The next documents will bear them.")
        return redirect("billing_details", slug=access.organization.slug)
    status = 422 if request.method == "POST" else 200
    details = read_billing_details(access.organization)
    return render(request, "console/billing_details.html", {"form": form, "details": details}, status=status)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_ORGANIZATION)
def retention(request: HttpRequest, access: Access) -> HttpResponse:
    """Choose for how long details of requests are kept, and say what is kept besides, and what deleting would do."""
    kept = DataRetention.objects.filter(organization=access.organization).first()
    kept_days = kept.details_days if kept else None
    form = RetentionForm(request.POST if request.method == "POST" else None, kept_days=kept_days)
    if request.method == "POST" and form.is_valid():
        days = form.cleaned_data["details_days"]
        choose_retention(access.organization, details_days=days, actor=access.user.email)
        messages.success(request, f"Details are kept for {days:,} days." if days else "Details are kept.")
        return redirect("retention", slug=access.organization.slug)
    context = {"form": form, "kept": kept, "deletion": find_deletion(access.organization)}
    return render(request, "console/retention.html", context, status=422 if request.method == "POST" else 200)
