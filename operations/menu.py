"""The admin's menu, by what somebody comes for. Everybody sees what their role lets them look at."""

from typing import Any

from django.apps import apps
from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

DASHBOARD, JOBS, RUNBOOK = "Dashboard", "Jobs", "Runbook"
# A test finds a table that is missing here.
GROUPS = (
    (
        "Look at first",
        ("billing.approval", "billing.usagequarantine", "billing.reconciliationbreak", "billing.paymentbreak"),
    ),
    ("Customers", ("accounts.organization", "accounts.user", "account.emailaddress", "accounts.apikey")),
    ("Requests", ("billing.usagerecord", "billing.failedrequest")),
    (
        "Money",
        (
            "billing.ledgertransaction",
            "billing.ledgerentry",
            "billing.ledgeraccount",
            "billing.creditlot",
            "billing.topup",
            "billing.automatictopup",
            "billing.recurringcredit",
            "billing.redemptioncode",
            "billing.document",
        ),
    ),
    (
        "Prices and upstreams",
        ("billing.priceversion", "billing.organizationpricefactor", "billing.languagemodel", "billing.upstream"),
    ),
    ("Told to customers", ("billing.alert", "billing.alertsettings", "billing.outgoingmail")),
    ("Webhooks", ("billing.webhookendpoint", "billing.webhookdelivery")),
    (
        "Behind the scenes",
        (
            "accounts.auditentry",
            "operations.jobrun",
            "billing.reconciliationrun",
            "billing.providerreport",
            "accounts.admissionchange",
        ),
    ),
)


def make_menu(request: HttpRequest) -> list[dict[str, Any]]:
    """Return the groups of the menu with what this operator may open, as django-unfold draws them."""
    groups = [{"title": title, "items": _items(request, tables)} for title, tables in GROUPS]
    first = [_item(DASHBOARD, reverse("admin:index"))]
    if request.user.has_perm("operations.view_jobrun"):
        first.append(_item(JOBS, reverse("operations_jobs")))
    first.append(_item(RUNBOOK, reverse("operations_runbook")))
    groups[0]["items"] = [*first, *groups[0]["items"]]
    return [group for group in groups if group["items"]]


def _items(request: HttpRequest, tables: tuple[str, ...]) -> list[dict[str, Any]]:
    items = []
    for table in tables:
        model = apps.get_model(table)
        if admin.site.get_model_admin(model).has_view_or_change_permission(request):
            meta = model._meta
            title = str(meta.verbose_name_plural)
            address = reverse(f"admin:{meta.app_label}_{meta.model_name}_changelist")
            items.append(_item(title[:1].upper() + title[1:], address))
    return items


def _item(title: str, link: str) -> dict[str, Any]:
    return {"title": title, "link": link}
