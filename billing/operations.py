"""The key figures that operators look at first."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db.models import Sum
from django.http import HttpRequest

from accounts.models import AdmissionChange
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.worker import oldest_waiting_ms
from billing.models import PriceVersion, UsageHour, UsageQuarantine
from billing.shards import SHARD_COUNT
from billing.usage_report import start_of_day

PERMISSIONS = {
    "see_revenue": "billing.view_ledgertransaction",
    "see_usage": "billing.view_usagerecord",
    "see_quarantine": "billing.view_usagequarantine",
    "see_changes": "accounts.view_admissionchange",
    "see_prices": "billing.view_priceversion",
}


@dataclass(frozen=True, slots=True)
class OperationFigures:
    """Of all organizations together, today in UTC. Amounts in nano-dollars; the lag is None while Redis is away."""

    requests_today: int
    revenue_today_nanos: int
    upstream_cost_today_nanos: int
    settlement_lag_seconds: float | None
    unpublished_changes: int
    open_quarantine: int
    price_drafts: int


def add_dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """Unfold's dashboard callback: what templates/admin/index.html shows above the list of tables.

    Each figure is for operators who may open the table that it sums: `may` holds what the template asks.
    """
    may = {name: request.user.has_perm(permission) for name, permission in PERMISSIONS.items()}
    return {**context, "operations": read_operations(), "may": may}


def read_operations() -> OperationFigures:
    hours = UsageHour.objects.filter(hour__gte=start_of_day(datetime.now(UTC).date()))
    sums = hours.aggregate(requests=Sum("requests"), cost=Sum("cost_nanos"), upstream_cost=Sum("upstream_cost_nanos"))
    return OperationFigures(
        requests_today=int(sums["requests"] or 0),
        revenue_today_nanos=int(sums["cost"] or 0),
        upstream_cost_today_nanos=int(sums["upstream_cost"] or 0),
        settlement_lag_seconds=_read_lag(),
        unpublished_changes=AdmissionChange.objects.count(),
        open_quarantine=UsageQuarantine.objects.filter(resolved_at=None).count(),
        price_drafts=PriceVersion.objects.filter(approved_at=None).count(),
    )


def _read_lag() -> float | None:
    try:
        oldest_ms = oldest_waiting_ms(range(SHARD_COUNT))
    except AdmissionUnavailableError:
        return None
    return max(0.0, time.time() - oldest_ms / 1000) if oldest_ms else 0.0
