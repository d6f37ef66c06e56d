"""check_ledger tells of what providers reported and cannot be, for as long as somebody may still look into it."""

from datetime import timedelta

import pytest
from django.utils import timezone

from billing.models import UsageRecord
from tests.billing.checks.test_check_ledger import broken, force
from tests.billing.ledger_factory import give, make_event, make_organization, settle

pytestmark = pytest.mark.django_db


def test_i5_a_report_beyond_what_is_possible() -> None:
    alice = make_organization("Alice")
    give(alice, 50_000)
    attempt = {"upstream": "acme", "status": 200, "outcome": "served", "problem": "100 prompt tokens reported"}
    settle(make_event(alice, 700, usage_source="bounded", attempts=[attempt]), make_event(alice, 5))
    record = UsageRecord.objects.get(usage_source="bounded")
    line = f"I5 usage {record.request_id} of organization {alice.pk}, upstream acme: 100 prompt tokens reported"
    assert broken() == [line]
    eight_days_ago = timezone.now() - timedelta(days=8)
    force("UPDATE billing_usagerecord SET settled_at = %s WHERE request_id = %s", eight_days_ago, record.request_id)
    assert line not in broken()
