"""An orphan is a provisional judgement; the truth replaces it, once, whenever it comes."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection

from accounts.models import Organization
from billing.margin import margins
from billing.models import (
    BudgetDay,
    LedgerAccount,
    LedgerTransaction,
    PriceVersion,
    UsageCorrection,
    UsageHour,
    UsageRecord,
)
from billing.receipts import Receipt, find_receipt
from billing.refunds import refund_usage
from billing.rerating import ReratingPlan, apply_rerating
from billing.statements import corrected_requests
from billing.usage_event import UsageEvent
from gateway.runtime import find_settled_ids
from tests.billing.books import (
    account_balances,
    assert_books_hold,
    give,
    make_event,
    make_failed_event,
    make_organization,
    make_price,
    posted,
    remaining,
    settle,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def alice() -> Organization:
    organization = make_organization("Alice")
    give(organization, 10_000)
    return organization


def orphan_of(event: UsageEvent, cost_nanos: int = 0, **values: Any) -> UsageEvent:
    """Return what was known of a request when its gateway went out of sight."""
    same = {name: getattr(event, name) for name in ("request_id", "admitted_at_ms", "admitted_day", "price_version_id")}
    organization = Organization.objects.get(pk=event.organization_id)
    return make_event(organization, cost_nanos, usage_source="orphan", upstream_cost_nanos=9, **same, **values)


def uuid_of(event: UsageEvent) -> UUID:
    return UUID(event.request_id)


@pytest.mark.parametrize(("known", "true"), [(0, 600), (250, 600), (600, 250), (600, 0), (300, 300)])
def test_the_difference_is_posted_once(alice: Organization, known: int, true: int) -> None:
    event = make_event(alice, true, upstream_cost_nanos=40)
    settle(orphan_of(event, known))
    assert posted(alice) == 10_000 - known
    for _ in range(3):
        settle(event)
    settle(orphan_of(event, known))
    assert posted(alice) == 10_000 - true
    correction = UsageCorrection.objects.get()
    assert (correction.cost_before_nanos, correction.cost_after_nanos) == (known, true)
    assert (correction.input_tokens, correction.usage_source, correction.outcome) == (true, "provider", "billed")
    assert LedgerTransaction.objects.filter(kind="correction").count() == (known != true)
    [record] = UsageRecord.objects.all()
    assert (record.usage_source, record.cost_nanos) == ("orphan", known)
    assert_books_hold()


def test_roll_ups_and_budgets_follow(alice: Organization) -> None:
    event = make_event(alice, 600, upstream_cost_nanos=40)
    settle(orphan_of(event, 250))
    settle(event)
    hour = UsageHour.objects.get()
    assert (hour.requests, hour.input_tokens, hour.cost_nanos, hour.upstream_cost_nanos) == (1, 600, 600, 40)
    assert set(BudgetDay.objects.values_list("cost_nanos", flat=True)) == {600}


def test_the_loss_of_the_house_is_taken_back(alice: Organization) -> None:
    event = make_event(alice, 600, upstream_cost_nanos=40)
    settle(orphan_of(event))
    losses = LedgerAccount.objects.filter(kind="orphan_loss")
    assert [account.balance_nanos for account in losses] == [-9]
    settle(event)
    assert [account.balance_nanos for account in losses.all()] == [0]
    assert_books_hold()


def test_a_request_that_had_failed_after_all_costs_nothing(alice: Organization) -> None:
    event = make_failed_event(alice)
    settle(orphan_of(event, 250))
    settle(event)
    assert posted(alice) == 10_000
    correction = UsageCorrection.objects.get()
    assert (correction.outcome, correction.cost_after_nanos) == ("failed", 0)
    assert UsageHour.objects.get().requests == 0
    assert_books_hold()


def test_both_in_one_batch_are_the_truth_at_once(alice: Organization) -> None:
    event = make_event(alice, 600)
    settle(orphan_of(event, 250), event)
    assert posted(alice) == 10_000 - 600
    assert not UsageCorrection.objects.exists()
    assert UsageRecord.objects.get().usage_source == "provider"


def test_the_truth_first_leaves_nothing_to_correct(alice: Organization) -> None:
    event = make_event(alice, 600)
    settle(event)
    settle(orphan_of(event, 250))
    assert posted(alice) == 10_000 - 600
    assert not UsageCorrection.objects.exists()
    assert_books_hold()


def test_more_than_the_balance_is_owed(alice: Organization) -> None:
    event = make_event(alice, 12_000)
    settle(orphan_of(event, 250))
    settle(event)
    assert posted(alice) == -2_000
    assert account_balances(alice) == {"receivable": -2_000}
    assert_books_hold()


def test_credit_pays_as_of_the_admission(alice: Organization) -> None:
    """A lot that has expired since pays for what was admitted before, also by a correction; not for what came later."""
    lot = give(alice, 5_000, kind="promotional", expires_at=datetime.now(UTC) + timedelta(hours=1))
    event = make_event(alice, 600)
    settle(orphan_of(event))
    settle(event)
    assert remaining(lot) == [4_400]


def test_what_is_given_back_goes_where_it_came_from(alice: Organization) -> None:
    lot = give(alice, 500, kind="promotional", priority=1)
    event = make_event(alice, 100)
    settle(orphan_of(event, 300))
    assert remaining(lot) == [200]
    settle(event)
    assert remaining(lot) == [400]
    assert account_balances(alice) == {"prepaid": 10_000, "promotional": 400}
    assert_books_hold()


def test_what_was_refunded_is_not_given_back_again(alice: Organization) -> None:
    event = make_event(alice, 100)
    settle(orphan_of(event, 300))
    refund_usage(alice, request_id=uuid_of(event), reason="r", actor="a", idempotency_key="k", amount_nanos=250)
    assert posted(alice) == 10_000 - 50
    settle(event)
    assert posted(alice) == 10_000
    assert_books_hold()


def test_a_corrected_request_is_refunded_up_to_what_it_costs(alice: Organization) -> None:
    event = make_event(alice, 600)
    settle(orphan_of(event))
    settle(event)
    refund_usage(alice, request_id=uuid_of(event), reason="r", actor="a", idempotency_key="k")
    assert posted(alice) == 10_000
    assert_books_hold()


def test_a_rerating_before_and_after_counts_the_truth(alice: Organization) -> None:
    event = make_event(alice, 600)
    settle(orphan_of(event, 200))
    version = PriceVersion.objects.get()
    double = make_price()
    components = {"input": 2_000, "output": 10_000}
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        for component, picos in components.items():
            cursor.execute(
                "UPDATE billing_pricecomponent SET picos_per_unit = %s WHERE price_version_id = %s AND component = %s",
                [picos, double.pk, component],
            )
        cursor.execute("SET LOCAL session_replication_role = origin")
    begins = datetime.now(UTC) - timedelta(days=1)
    plan = ReratingPlan(version.language_model, double, begins, datetime.now(UTC))
    apply_rerating(plan, actor="a", reason="r")
    assert posted(alice) == 10_000 - 400
    settle(event)
    assert posted(alice) == 10_000 - 1_200
    assert apply_rerating(plan, actor="a", reason="again") == []
    [row] = margins("model", begins=begins, ends=datetime.now(UTC) + timedelta(minutes=1))
    assert row.cost_nanos == 1_200


def test_the_receipt_and_the_statement_show_it(alice: Organization) -> None:
    event = make_event(alice, 600)
    settle(orphan_of(event, 250))
    settle(event)
    receipt = find_receipt(alice, uuid_of(event))
    assert isinstance(receipt, Receipt)
    assert (receipt.record.cost_nanos, receipt.current_nanos, receipt.is_corrected) == (250, 600, True)
    assert [(line.component, line.count) for line in receipt.corrected_lines] == [("input", 600)]
    transaction = LedgerTransaction.objects.get(kind="correction")
    [corrected] = corrected_requests(transaction, limit=10)
    assert (corrected.request_id, corrected.difference_nanos) == (uuid_of(event), -350)


def test_a_bare_orphan_is_no_reason_to_forget_a_spooled_event(alice: Organization) -> None:
    event, other = make_event(alice, 600), make_event(alice, 5)
    settle(orphan_of(event, 250), other)
    ids = [event.request_id, other.request_id]
    assert find_settled_ids(ids) == {other.request_id}
    settle(event)
    assert find_settled_ids(ids) == set(ids)
    call_command("check_ledger", "--quiet")
