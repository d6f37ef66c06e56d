"""What is on sale and at which prices: for everybody, and for an organization at its own prices."""

from datetime import UTC, datetime

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission
from billing.catalog.price_list import factor_of, list_prices
from console.entrance import console_page


@require_safe
def price_list(request: HttpRequest) -> HttpResponse:
    return render(request, "console/price_list.html", {"listed": list_prices(now=datetime.now(UTC))})


@require_safe
@console_page(Permission.SEE_USAGE)
def models(request: HttpRequest, access: Access) -> HttpResponse:
    now = datetime.now(UTC)
    context = {
        "listed": list_prices(now=now, organization_id=access.organization.pk),
        "factor_ppm": factor_of(access.organization.pk, now=now),
    }
    return render(request, "console/models.html", context)
