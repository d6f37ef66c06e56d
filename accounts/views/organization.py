"""What an organization decides for itself: its name, its budgets, and whether answers carry their cost."""

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from accounts.access import Access, Permission, console_page
from accounts.forms import OrganizationSettingsForm
from accounts.organizations import change_organization
from accounts.views.publishing import publish_or_tell


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
    }
    status = 422 if request.method == "POST" else 200
    return render(request, "accounts/organization_settings.html", context, status=status)
