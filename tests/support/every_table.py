"""A row in every table that the admin shows: what its pages look like with something on them."""

import uuid
from datetime import date, timedelta

from django.contrib import admin
from django.utils import timezone

from accounts.models import AdmissionChange, AuditEntry, Organization
from accounts.staff_roles import StaffRole
from billing.approvals.book import ask
from billing.catalog.notices import tell_who_may_approve
from billing.catalog.price_versions import PriceDraft, draft_price
from billing.credit.redemption import create_codes
from billing.documents.closing import issue_receipts
from billing.models import (
    AlertSettings,
    Approval,
    AutomaticTopUp,
    OrganizationPriceFactor,
    PaymentBreak,
    ProviderReport,
    ReconciliationBreak,
    ReconciliationRun,
    Route,
    TopUp,
    Upstream,
    UsageQuarantine,
)
from billing.payments.recurring import include_monthly
from billing.webhooks.endpoints import add_endpoint
from billing.webhooks.queue import queue_test
from operations.jobs import job
from tests.billing.ledger_factory import USD, give
from tests.support.operators import make_operator
from tests.support.people import People
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle
from tests.support.spending import raise_some_alert


def fill_every_table(people: People) -> None:
    """Give each table of the admin a row at least. Raises AssertionError for one that is not known here."""
    organization, now = people.organization, timezone.now()
    version = sell_model()
    upstream = Upstream.objects.create(name="acme", protocol="messages", base_url="http://127.0.0.1:9")
    Route.objects.create(language_model=version.language_model, upstream=upstream, upstream_model="x")
    settle([billed_event(people.key, version), failed_event(people.key, version)])
    UsageQuarantine.objects.create(
        organization=organization, shard=1, stream_id="1-1", raw_event=b"\xff{}", reason="not JSON"
    )
    draft = PriceDraft(now, "a list", now.date(), {"input": ((0, 1),), "output": ((0, 2),)})
    fay = make_operator("fay", StaffRole.FINANCE)
    make_operator("finn", StaffRole.FINANCE)
    tell_who_may_approve([draft_price(version.language_model, draft, created_by=str(fay), drafted_by=fay)])
    give(organization, 10 * USD)
    _pay(organization)
    _ask(people, fay_usd=900)
    include_monthly(organization, amount_nanos=USD, first_month=date(2026, 1, 1), reason="r", created_by="fay")
    create_codes(amount_nanos=USD, reason="r", created_by="fay")
    OrganizationPriceFactor.objects.create(
        organization=organization, factor_ppm=900_000, effective_from=now, reason="r", created_by="fay"
    )
    AutomaticTopUp.objects.create(organization=organization)
    AlertSettings.objects.create(organization=organization)
    raise_some_alert(organization)
    endpoint, _ = add_endpoint(organization, url="https://example.org/", created_by=people.alice)
    queue_test(endpoint)
    _reconcile(organization)
    with job("maintenance"):
        pass
    empty = [model for model in admin.site._registry if not model._default_manager.exists()]
    assert empty == []
    assert AdmissionChange.objects.exists()
    assert AuditEntry.objects.exists()


def _pay(organization: Organization) -> None:
    """A top-up by hand with its receipt, an order that waits, and a break."""
    lot = give(organization, 5 * USD, kind="paid")
    posting = lot.entries.order_by("id").first()
    assert posting is not None
    TopUp.objects.create(
        organization=organization,
        amount_nanos=5 * USD,
        paid_nanos=5 * USD,
        provider="manual",
        state=TopUp.State.PAID,
        paid_at=timezone.now(),
        ledger_transaction_id=posting.transaction_id,
        idempotency_key="paid",
        created_by="fay",
    )
    TopUp.objects.create(
        organization=organization, amount_nanos=USD, provider="sandbox", idempotency_key="waits", created_by="alice"
    )
    issue_receipts(organization)
    PaymentBreak.objects.create(kind="unknown", provider="sandbox", reference="pay_1", detail="Nobody ordered it.")


def _ask(people: People, *, fay_usd: int) -> None:
    ask(
        Approval.Kind.GRANT,
        organization=people.organization,
        terms={"amount_nanos": fay_usd * USD, "lot_kind": "promotional", "expires_at": None, "priority": 100},
        amount_nanos=fay_usd * USD,
        reason="Outage",
        asked_by=make_operator("flo", StaffRole.FINANCE),
        idempotency_key=f"grant:{uuid.uuid4()}",
    )


def _reconcile(organization: Organization) -> None:
    now = timezone.now()
    ReconciliationRun.objects.create(source="usage_days", ended_at=now)
    ReconciliationBreak.objects.create(
        source="usage_days",
        subject="2026-11-01",
        organization=organization,
        detail="One record is missing.",
        amount_nanos=1,
        amount_cents=1,
    )
    report = ProviderReport.objects.create(kind="cost", upstream="acme", day=(now - timedelta(days=1)).date())
    report.lines.create(upstream_model="x", cost_nanos=5)
