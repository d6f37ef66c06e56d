"""The first page of an organization: what it can spend, what it spent, its latest requests, and how to begin."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_safe

from accounts.access import Access, Permission
from accounts.models import ApiKey, Organization
from billing.admission.balances import BalanceView, read_balance
from billing.alerts.choices import open_alerts
from billing.budgets.overrides import Scope, open_overrides
from billing.usage.overview import Activity, read_activity, read_month
from billing.usage.requests import ListedRequest, find_details, latest_requests
from billing.usage.sums import Sums, UsageFilter, sum_by_interval
from console.chart import Chart, Point, draw_bars
from console.entrance import console_page
from console.following import follow_until, may_ask, stop_following
from console.usage_tables import axis_texts, label_of, usd_text
from pages.alert_text import describe_alert
from pages.templatetags.amounts import column_decimals, permille

CHART_DAYS = 30
LATEST_REQUESTS = 8
STEPS_SECONDS = 3_600  # A page that nobody looks at any more stops asking.
ALERTS_SHOWN = 3
SNIPPET_MODEL = "anthropic/claude-sonnet-4.6"


@require_safe
@console_page(Permission.SEE_USAGE)
def overview(request: HttpRequest, access: Access) -> HttpResponse:
    organization = access.organization
    today = datetime.now(UTC).date()
    requests = latest_requests(organization, limit=LATEST_REQUESTS)
    role = access.member.role
    balance = read_balance(organization)
    context: dict[str, Any] = {
        "alerts": [
            describe_alert(alert, role=role) for alert in open_alerts(organization, role=role, limit=ALERTS_SHOWN)
        ],
        "balance": balance,
        "requests": requests,
        "base_url": settings.BASE_URL,
        "model_id": SNIPPET_MODEL,
        "today": today,
    }
    if requests:
        context |= _numbers(organization, today) | _names(organization, requests)
        if access.may(Permission.MANAGE_ORGANIZATION):
            others = open_overrides(organization).exclude(scope=Scope.ORGANIZATION)
            context["other_overrides"] = others.count()
    else:
        context |= {"steps": _steps(organization, balance, requests), "slug": organization.slug}
        context["until"] = follow_until(STEPS_SECONDS)
    return render(request, "console/overview.html", context)


@require_safe
@console_page(Permission.SEE_USAGE)
def overview_steps(request: HttpRequest, access: Access) -> HttpResponse:
    """The checklist of a new organization, as far as it has come: its page asks every few seconds."""
    organization = access.organization
    requests = latest_requests(organization, limit=1)
    until = request.GET.get("until", "")
    if not requests and not may_ask(until):
        return stop_following()
    steps = _steps(organization, read_balance(organization), requests)
    first = requests[0] if requests else None
    context = {"steps": steps, "slug": organization.slug, "first": first, "until": until}
    return render(request, "console/_steps.html", context)


def _numbers(organization: Organization, today: date) -> dict[str, Any]:
    """Return what the last days came to, beside as many before."""
    now = read_activity(organization, last_day=today, days=CHART_DAYS)
    before = read_activity(organization, last_day=today - timedelta(days=CHART_DAYS), days=CHART_DAYS)
    chart = _draw(organization, today)
    return {
        "month": read_month(organization, today),
        "week_begins": today - timedelta(days=today.weekday()),
        "now": now,
        "figures": _figures(now, before),
        "chart": chart,
        "decimals": column_decimals(bar.point.total for bar in chart.bars),
        **axis_texts("spend", chart),
    }


def _figures(now: Activity, before: Activity) -> list[dict[str, str]]:
    return [
        {"label": label, "text": text, "before": earlier}
        for label, text, earlier in (
            ("Spend", usd_text(now.sums.cost_nanos), usd_text(before.sums.cost_nanos)),
            ("Requests", f"{now.asked:,}", f"{before.asked:,}"),
            ("Error rate", permille(now.error_permille), permille(before.error_permille)),
            ("Refusal rate", permille(now.refusal_permille), permille(before.refusal_permille)),
            ("Cache hit rate", permille(now.sums.cache_hit_permille), permille(before.sums.cache_hit_permille)),
        )
    ]


def _draw(organization: Organization, today: date) -> Chart:
    """Return the spend of each day, beside that of as many days before."""
    first_day = today - timedelta(days=2 * CHART_DAYS - 1)
    found = sum_by_interval(organization, UsageFilter(first_day, today), "day")
    spent = [found.get(first_day + timedelta(days=offset), Sums()).cost_nanos for offset in range(2 * CHART_DAYS)]
    days = [today - timedelta(days=offset) for offset in reversed(range(CHART_DAYS))]
    return draw_bars(
        [
            Point(
                label=label_of(day, "day"),
                parts=(spent[CHART_DAYS + offset],),
                before=spent[offset],
                text=usd_text(spent[CHART_DAYS + offset]),
                link=f"?first_day={day}&last_day={day}",
            )
            for offset, day in enumerate(days)
        ]
    )


def _names(organization: Organization, requests: list[ListedRequest]) -> dict[str, Any]:
    keys = ApiKey.objects.filter(organization=organization, pk__in={listed.key_id for listed in requests})
    return {"key_names": dict(keys.values_list("pk", "name")), "details": find_details(requests)}


def _steps(organization: Organization, balance: BalanceView, requests: list[ListedRequest]) -> list[dict[str, Any]]:
    """Return what a new organization does, in order, and what of it is done."""
    credit = balance.posted_nanos + balance.credit_limit_nanos > 0
    has_key = bool(requests) or organization.keys.filter(revoked_at=None, is_management=False).exists()
    return [
        {"name": "credit", "done": credit},
        {"name": "key", "done": has_key},
        {"name": "request", "done": bool(requests)},
    ]
