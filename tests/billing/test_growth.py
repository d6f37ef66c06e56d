"""As records grow no page reads more: each statement reads rows of its organization only, and months of its range."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from accounts.keys import create_key
from accounts.models import Member, Organization, Role
from bench.load_records import load
from billing.admission.outbox import publish_pending_changes
from billing.models import LedgerTransaction, UsageRecord
from tests.billing.ledger_factory import assert_ledger_holds
from tests.support.people import client_of, make_person
from tests.support.plans import plans_noted
from tests.support.streamed import read_streamed

RECORDS, ORGANIZATIONS, MODELS, BATCH = 20_000, 40, 3, 20
NOW = datetime.now(UTC)


@pytest.fixture
def cold(db: None) -> Organization:
    """The organization with the fewest records of a year."""
    months = list(load(records=RECORDS, organizations=ORGANIZATIONS, models=MODELS, batch=BATCH, now=NOW))
    assert len(months) == 13
    assert UsageRecord.objects.count() > RECORDS * 0.9
    organization = Organization.objects.get(slug=f"load-{ORGANIZATIONS - 1:04}")
    Member.objects.create(organization=organization, user=make_person("alice"), role=Role.OWNER)
    return organization


@pytest.mark.long
def test_no_page_reads_rows_of_other_organizations_or_months(cold: Organization) -> None:
    assert_ledger_holds()  # What the loader writes is as settlement would have left it.
    client = client_of(Member.objects.get(organization=cold).user)
    record = UsageRecord.objects.filter(organization_id=cold.pk).latest("request_id")
    debit = LedgerTransaction.objects.get(pk=record.ledger_transaction_id or 0)
    key = cold.keys.order_by("pk")[0]
    month = f"{record.admitted_at:%Y-%m}"
    past = f"first_day={(NOW - timedelta(days=300)):%Y-%m-%d}&last_day={(NOW - timedelta(days=280)):%Y-%m-%d}"
    pages: list[tuple[str, dict[str, Any], str]] = [
        ("overview", {}, ""),
        ("keys", {}, ""),
        ("alerts", {}, ""),
        ("usage", {}, ""),
        ("usage", {}, f"key={key.pk}"),
        ("usage", {}, "outcome=failed"),
        ("usage", {}, past),
        ("usage_export", {}, ""),
        ("receipt", {"request_id": record.request_id.hex}, ""),
        ("billing", {}, ""),
        ("billing", {}, "show=credit"),
        ("billing", {}, "show=usage"),
        ("transaction", {"transaction_id": debit.pk}, ""),
        ("documents", {}, ""),
        ("statement", {"month": month}, ""),
        ("statement_day", {"month": month, "day": record.admitted_at.day}, ""),
    ]
    found: dict[str, list[str]] = {}
    _, secret = create_key(cold, name="API", created_by=None)
    publish_pending_changes()
    with plans_noted() as plans:
        for path in ("credits", "key", f"generation?id={record.request_id.hex}"):
            assert Client().get(f"/api/v1/{path}", headers={"x-api-key": secret}).status_code == 200, path
            found[path], plans.wide = plans.wide, []
            assert plans.partitions <= 1, path
        for name, names, query in pages:
            response = client.get(reverse(name, kwargs={"slug": cold.slug, **names}) + f"?{query}")
            assert response.status_code == 200, name
            if response.streaming:
                read_streamed(response)
            found[f"{name}?{query}"], plans.wide = plans.wide, []
            assert plans.partitions <= 3, name
    assert plans.statements > 50
    assert {page: wide for page, wide in found.items() if wide} == {}
