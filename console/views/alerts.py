"""Alerts: what is open, what is over, and who is told of what."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from accounts.access import Access, Permission
from billing.alerts.choices import change_choices, open_alerts, past_alerts, read_choices
from console.entrance import console_page
from console.forms.alerts import AlertSettingsForm
from pages.alert_text import describe_alert

PAST_ALERTS_SHOWN = 20


@require_http_methods(["GET", "HEAD", "POST"])
@console_page(Permission.SEE_USAGE)
def alerts(request: HttpRequest, access: Access) -> HttpResponse:
    """Every member sees the alerts; who may, chooses with a POST."""
    form = None
    if access.may(Permission.MANAGE_ALERTS):
        form = AlertSettingsForm(request.POST or None, instance=read_choices(access.organization))
    if request.method == "POST":
        if form is None:
            raise PermissionDenied
        if form.is_valid():
            change_choices(access.organization, fields=form.chosen)
            messages.success(request, "Saved.")
            return redirect("alerts", slug=access.organization.slug)
    role = access.member.role
    context = {
        "form": form,
        "open": [(alert, describe_alert(alert, role=role)) for alert in open_alerts(access.organization, role=role)],
        "past": [
            (alert, describe_alert(alert, role=role))
            for alert in past_alerts(access.organization, role=role, limit=PAST_ALERTS_SHOWN)
        ],
    }
    return render(request, "console/alerts.html", context, status=422 if request.method == "POST" else 200)
