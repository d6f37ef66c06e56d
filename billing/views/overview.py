"""The first page of an organization: what it can spend, what it spent, its latest requests, and how to begin."""

from datetime import UTC, datetime

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission, console_page
from accounts.models import ApiKey
from billing.balances import read_balance
from billing.usage_report import cost_by_day, latest_requests, start_of_day, sum_usage
from billing.views.chart import draw_days

CHART_DAYS = 30
LATEST_REQUESTS = 8
SNIPPET_MODEL = "anthropic/claude-sonnet-4.6"


@require_safe
@console_page(Permission.SEE_USAGE)
def overview(request: HttpRequest, access: Access) -> HttpResponse:
    organization = access.organization
    today = datetime.now(UTC).date()
    days = cost_by_day(organization, last_day=today, days=CHART_DAYS)
    requests = latest_requests(organization, limit=LATEST_REQUESTS)
    key_names = dict(
        ApiKey.objects.filter(organization=organization, pk__in={listed.key_id for listed in requests}).values_list(
            "pk", "name"
        )
    )
    context = {
        "balance": read_balance(organization),
        "today": days[-1],
        "month": sum_usage(organization, since=start_of_day(today.replace(day=1))),
        "chart": draw_days(days),
        "period_nanos": sum(day.cost_nanos for day in days),
        "period_requests": sum(day.requests for day in days),
        "requests": requests,
        "key_names": key_names,
        "has_keys": bool(requests) or organization.keys.filter(revoked_at=None).exists(),
        "base_url": settings.BASE_URL,
        "model_id": SNIPPET_MODEL,
    }
    return render(request, "billing/overview.html", context)
