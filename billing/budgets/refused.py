"""What limits and budgets have refused: by day and reason, and the latest refusals."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from django.db.models import Q

from accounts.models import Organization
from billing.days import date_of
from billing.models import RefusedDay, RefusedRequest

DAYS_SHOWN = 30
MAX_REASONS = 20
MAX_REFUSALS_LISTED = 100
MAX_REFUSALS_READ = 2_000  # Of all kinds: among so many it is looked for those of limits.
BY_A_LIMIT = (
    Q(error_code__startswith="rate_limited_")
    | Q(error_code__endswith="_budget_exceeded")
    | Q(error_code="insufficient_balance")
)


class RefusedReason(NamedTuple):
    """How many requests were refused for one reason, today, in the last seven days and in DAYS_SHOWN days."""

    code: str
    today: int
    week: int
    month: int


def refusals_by_day(organization: Organization, *, today: int) -> list[RefusedReason]:
    """Return the reasons that limits, budgets and the balance gave lately, the most frequent first."""
    date = date_of(today)
    rows = RefusedDay.objects.filter(organization_id=organization.pk, day__gt=date - timedelta(days=DAYS_SHOWN))
    sums: dict[str, list[int]] = {}
    for code, day, requests in rows.values_list("error_code", "day", "requests"):
        if not is_limit(code):
            continue
        found = sums.setdefault(code, [0, 0, 0])
        found[0] += requests if day == date else 0
        found[1] += requests if day > date - timedelta(days=7) else 0
        found[2] += requests
    reasons = [RefusedReason(code, *counts) for code, counts in sums.items()]
    return sorted(reasons, key=lambda reason: (-reason.month, reason.code))[:MAX_REASONS]


def latest_refusals(organization: Organization, *, limit: int) -> Sequence[RefusedRequest]:
    """Return the latest requests that a limit, a budget or the balance refused."""
    newest = RefusedRequest.objects.filter(organization_id=organization.pk).order_by("-request_id")
    rows = RefusedRequest.objects.filter(BY_A_LIMIT, request_id__in=newest.values("request_id")[:MAX_REFUSALS_READ])
    return list(rows.order_by("-request_id")[: min(limit, MAX_REFUSALS_LISTED)])


def is_limit(code: str) -> bool:
    """Say whether this is the reason of a limit, a budget or the balance."""
    return code.startswith("rate_limited_") or code.endswith("_budget_exceeded") or code == "insufficient_balance"
