"""10,000 requests at once on a balance of 1 USD, each costing more than its hold: is the overdraft within its bound?

Promise P2 (docs/money.md): the balance stays above minus the sum, over what was admitted, of what cost more than held.
"""

from typing import Any

from django.db.models import Sum

from accounts.models import Organization
from bench.deployment import Deployment
from bench.open_files import allow_files
from bench.requests import wait_until_settled
from bench.tenants import make_tenant, write_requests
from billing.admission.blocking import read_admission_state
from billing.ledger.statements import posted_nanos
from billing.models import UsageRecord
from billing.money import NANOS_PER_USD

AT_ONCE, QUICK_AT_ONCE = 10_000, 2_000
UPSTREAM_DELAY_SECONDS = 15.0
MAX_TOKENS = 40  # The upstream says 200 whatever it is asked for: every request costs more than its hold.


def measure(deployment: Deployment, quick: bool) -> dict[str, Any]:
    """Return how the requests were answered, and the balance beside its bound. Raises AssertionError beyond it."""
    at_once = min(QUICK_AT_ONCE if quick else AT_ONCE, allow_files())
    tenant = make_tenant("overdraft", credit_usd="1")
    requests = write_requests(deployment.folder / "overdraft.json", [tenant], max_tokens=MAX_TOKENS)
    upstream = deployment.start_upstream("--delay", str(UPSTREAM_DELAY_SECONDS))
    gateway, worker = deployment.start_gateway(), deployment.start_worker()
    try:
        load = deployment.run_module(
            "bench.load", "--port", str(gateway.port), "--connections", str(at_once), "--total", str(at_once),
            "--requests", str(requests),
        )  # fmt: skip
        wait_until_settled()
    finally:
        for program in (gateway, worker, upstream):
            program.stop()
    records = UsageRecord.objects.filter(organization_id=tenant.organization_id)
    cost_nanos = records.aggregate(total=Sum("cost_nanos"))["total"] or 0
    above_hold_nanos = sum(max(0, cost - hold) for cost, hold in records.values_list("cost_nanos", "hold_nanos"))
    balance_nanos = posted_nanos(Organization.objects.get(pk=tenant.organization_id))
    state = read_admission_state(tenant.organization_id)
    assert balance_nanos == NANOS_PER_USD - cost_nanos, "the balance is not what was paid in less what was charged"
    assert balance_nanos >= -above_hold_nanos, "the overdraft is beyond its bound"
    assert load["statuses"].get("200", 0) == len(records), "what was served is not what was billed"
    assert state is not None and state.held_nanos == state.unsettled_nanos == 0, "something is still held"
    return {
        "at_once": at_once,
        "statuses": load["statuses"],
        "first_errors": load["first_errors"],
        "seconds": load["seconds"],
        "balance_nanos": balance_nanos,
        "bound_nanos": -above_hold_nanos,
        "billed": len(records),
    }
