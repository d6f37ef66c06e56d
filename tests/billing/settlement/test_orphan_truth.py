"""An orphan is a provisional judgement; the truth replaces it, once, whenever it comes."""

import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection

from accounts.models import Organization
from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
from billing.corrections.refunds import adjust_balance, refund_usage
from billing.corrections.rerating import ReratingPlan, apply_rerating
from billing.ledger.statements import corrected_requests
from billing.models import (
    BudgetDay,
    LanguageModel,
    LedgerAccount,
    LedgerTransaction,
    PriceVersion,
    UsageCorrection,
    UsageHour,
    UsageQuarantine,
    UsageRecord,
)
from billing.settlement import batch
from billing.settlement.quarantine_resolution import ResolutionError, settle_quarantined
from billing.usage.budgets import WHOLE_ORGANIZATION, spent_nanos_by_day
from billing.usage.margin import margins
from billing.usage.receipts import Receipt, find_receipt
from billing.usage_event import UsageEvent
from gateway.runtime import find_settled_ids
from tests.billing.ledger_factory import (
    KEY,
    account_balances,
    assert_ledger_holds,
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
    for key_id, first_day, spent in ((WHOLE_ORGANIZATION, 0, true), (KEY, 0, true), (KEY + 1, 0, 0), (KEY, 99_999, 0)):
        days = spent_nanos_by_day(organization_id=alice.pk, key_id=key_id, first_day=first_day)
        assert sum(days.values()) == spent
    assert_ledger_holds()


def test_roll_ups_and_budgets_follow(alice: Organization) -> None:
    event = make_event(alice, 600, upstream_cost_nanos=40)
    settle(orphan_of(event, 250))
    settle(event)
    hour = UsageHour.objects.get()
    assert (hour.requests, hour.input_tokens, hour.cost_nanos, hour.upstream_cost_nanos) == (1, 600, 600, 40)
    assert set(BudgetDay.objects.values_list("cost_nanos", flat=True)) == {600}


def test_a_budget_is_not_lowered_by_what_is_given_back(alice: Organization) -> None:
    """What is posted for a day only grows: Redis takes the larger of two sums for the newer one. docs/money.md."""
    event = make_event(alice, 250)
    settle(orphan_of(event, 600))
    told = settle(event)
    assert set(BudgetDay.objects.values_list("cost_nanos", flat=True)) == {600}
    assert {day.posted_nanos for day in told.posted_days} == {600}
    assert posted(alice) == 10_000 - 250
    assert_ledger_holds()


def test_the_loss_of_the_house_is_taken_back(alice: Organization) -> None:
    event = make_event(alice, 600, upstream_cost_nanos=40)
    settle(orphan_of(event))
    losses = LedgerAccount.objects.filter(kind="orphan_loss")
    assert [account.balance_nanos for account in losses] == [-9]
    settle(event)
    assert [account.balance_nanos for account in losses.all()] == [0]
    assert_ledger_holds()


def test_a_request_that_had_failed_after_all_costs_nothing(alice: Organization) -> None:
    event = make_failed_event(alice)
    settle(orphan_of(event, 250))
    settle(event)
    assert posted(alice) == 10_000
    correction = UsageCorrection.objects.get()
    assert (correction.outcome, correction.cost_after_nanos) == ("failed", 0)
    assert UsageHour.objects.get().requests == 0
    assert_ledger_holds()


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
    assert_ledger_holds()


def test_more_than_the_balance_is_owed(alice: Organization) -> None:
    event = make_event(alice, 12_000)
    settle(orphan_of(event, 250))
    settle(event)
    assert posted(alice) == -2_000
    assert account_balances(alice) == {"receivable": -2_000}
    assert_ledger_holds()


def test_credit_pays_as_of_the_admission(alice: Organization) -> None:
    """A lot that has expired since pays for what was admitted before, also by a correction; not for what came later."""
    lot = give(alice, 5_000, kind="promotional", expires_at=datetime.now(UTC) + timedelta(seconds=2))
    before = make_event(alice, 600)
    settle(orphan_of(before))
    time.sleep(2.1)
    later = make_event(alice, 700)
    settle(orphan_of(later))
    for event in (before, later):
        settle(event)
    assert remaining(lot) == [4_400]
    assert_ledger_holds()


def test_a_clock_that_ran_ahead_keeps_no_lot_from_paying_for_the_truth(alice: Organization) -> None:
    lot = give(alice, 5_000, kind="promotional", expires_at=datetime.now(UTC) + timedelta(minutes=1))
    event = make_event(alice, 600, admitted_at_ms=int(time.time() * 1000) + 3_600_000)
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
    assert_ledger_holds()


def test_what_was_refunded_is_not_given_back_again(alice: Organization) -> None:
    event = make_event(alice, 100)
    settle(orphan_of(event, 300))
    refund_usage(alice, request_id=uuid_of(event), reason="r", actor="a", idempotency_key="k", amount_nanos=250)
    assert posted(alice) == 10_000 - 50
    settle(event)
    assert posted(alice) == 10_000
    assert_ledger_holds()


def test_a_corrected_request_is_refunded_up_to_what_it_costs(alice: Organization) -> None:
    event = make_event(alice, 600)
    settle(orphan_of(event))
    settle(event)
    refund_usage(alice, request_id=uuid_of(event), reason="r", actor="a", idempotency_key="k")
    assert posted(alice) == 10_000
    assert_ledger_holds()


@pytest.mark.parametrize("known", [0, 250, 600, 700])
def test_a_refund_of_a_corrected_request_goes_back_to_the_lots_that_paid_for_the_truth(
    alice: Organization, known: int
) -> None:
    """What the correction drew is beyond what the orphan had drawn: it is paid credit all the same."""
    gift = give(alice, 400, kind="promotional")
    event = make_event(alice, 600)
    settle(orphan_of(event, known))
    settle(event)
    refund_usage(alice, request_id=uuid_of(event), reason="r", actor="a", idempotency_key="k")
    assert account_balances(alice) == {"prepaid": 10_000, "promotional": 400}
    assert remaining(gift) == [400]
    assert_ledger_holds()


def test_refunds_of_one_batch_share_what_its_corrections_drew(alice: Organization) -> None:
    events = [make_event(alice, nanos) for nanos in (600, 50, 900)]
    settle(*(orphan_of(event, known) for event, known in zip(events, (200, 300, 0), strict=True)))
    settle(*events)
    for number, event in enumerate(events):
        refund_usage(alice, request_id=uuid_of(event), reason="r", actor="a", idempotency_key=str(number))
    assert account_balances(alice) == {"prepaid": 10_000}
    assert_ledger_holds()


def test_what_a_correction_left_owed_is_owed_no_longer_after_its_refund(alice: Organization) -> None:
    event = make_event(alice, 12_000)
    settle(orphan_of(event, 250))
    settle(event)
    refund_usage(alice, request_id=uuid_of(event), reason="r", actor="a", idempotency_key="k")
    assert account_balances(alice) == {"prepaid": 10_000}
    assert_ledger_holds()


def test_a_rerating_gives_back_to_the_lots_that_paid_for_a_correction() -> None:
    """Promotional credit paid for it, and must not become cash because something else made room in a paid lot."""
    bob = make_organization("Bob")
    give(bob, 500)
    adjust_balance(bob, amount_nanos=-500, reason="r", actor="a", idempotency_key="room")
    give(bob, 1_000, kind="promotional")
    event = make_event(bob, 600)
    settle(orphan_of(event))
    settle(event)
    half = make_price_of(picos={"input": 500, "output": 2_500})
    plan = ReratingPlan(half.language_model, half, datetime.now(UTC) - timedelta(days=1), datetime.now(UTC))
    before = account_balances(bob)
    apply_rerating(plan, actor="a", reason="r")
    assert before == {"promotional": 400}
    assert account_balances(bob) == {"promotional": 700}
    assert_ledger_holds()


def make_price_of(*, picos: dict[str, int]) -> PriceVersion:
    """Return another price version of the model that is sold, with these amounts."""
    version = make_price()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        for component, amount in picos.items():
            cursor.execute(
                "UPDATE billing_pricecomponent SET picos_per_unit = %s WHERE price_version_id = %s AND component = %s",
                [amount, version.pk, component],
            )
        cursor.execute("SET LOCAL session_replication_role = origin")
    return version


def test_a_rerating_before_and_after_counts_the_truth(alice: Organization) -> None:
    event = make_event(alice, 600)
    settle(orphan_of(event, 200))
    version = PriceVersion.objects.get()
    double = make_price_of(picos={"input": 2_000, "output": 10_000})
    begins = datetime.now(UTC) - timedelta(days=1)
    plan = ReratingPlan(version.language_model, double, begins, datetime.now(UTC))
    apply_rerating(plan, actor="a", reason="r")
    assert posted(alice) == 10_000 - 400
    settle(event)
    assert posted(alice) == 10_000 - 1_200
    assert apply_rerating(plan, actor="a", reason="again") == []
    [row] = margins("model", begins=begins, ends=datetime.now(UTC) + timedelta(minutes=1))
    assert row.cost_nanos == 1_200
    assert_ledger_holds()


def test_a_truth_that_a_rerating_has_no_price_for_waits_in_quarantine_and_holds_up_nobody(alice: Organization) -> None:
    """Its price version priced what was known of the orphan, and has no price for the cache reads of the truth."""
    version, event, other = make_price(), make_event(alice, 600, cache_read_tokens=5), make_event(alice, 5)
    settle(orphan_of(event, 200))
    yesterday = datetime.now(UTC) - timedelta(days=1)
    double = make_price_of(picos={"input": 2_000, "output": 10_000})
    apply_rerating(ReratingPlan(version.language_model, double, yesterday, datetime.now(UTC)), actor="a", reason="r")
    assert settle(event, other).quarantined == 1
    [row] = UsageQuarantine.objects.all()
    assert "no price for cache_read" in row.reason
    assert posted(alice) == 10_000 - 400 - 5
    with pytest.raises(ResolutionError, match="no price for cache_read"):
        settle_quarantined(row, actor="olga", reason="again")
    complete = price_with_cache_reads(version.language_model)
    apply_rerating(ReratingPlan(version.language_model, complete, yesterday, datetime.now(UTC)), actor="a", reason="r")
    settle_quarantined(row, actor="olga", reason="re-rated with a price for them")
    assert posted(alice) == 10_000 - (600 * 3 + 5) - 5 * 3
    assert_ledger_holds()


def price_with_cache_reads(language_model: LanguageModel) -> PriceVersion:
    draft = PriceDraft(
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
        source="test",
        source_date=date(2026, 1, 1),
        tiers={"input": ((0, 3_000),), "output": ((0, 10_000),), "cache_read": ((0, 1_000),)},
    )
    return approve_price_version(draft_price(language_model, draft, created_by="alice"), approved_by="bob")


def test_a_truth_that_is_told_twice_in_one_batch_ends_as_any_request_does(alice: Organization) -> None:
    """What reached a client is paid for: billed wins over failed, whichever came last."""
    event = make_event(alice, 600)
    same = {name: getattr(event, name) for name in ("request_id", "admitted_at_ms", "admitted_day")}
    settle(orphan_of(event, 250))
    settle(event, make_failed_event(alice, **same))
    assert UsageCorrection.objects.get().outcome == "billed"
    assert posted(alice) == 10_000 - 600
    assert_ledger_holds()


def test_two_truths_of_one_batch_give_back_what_is_owed_once(
    alice: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [make_event(alice, 5_000) for _ in range(2)]
    settle(*(orphan_of(event, 5_050) for event in events))
    assert account_balances(alice) == {"receivable": -100}
    give(alice, 40, kind="promotional")
    monkeypatch.setattr(batch, "EVENT_FAULTS", ())  # Halving would hide what the database has refused.
    settle(*events)
    assert account_balances(alice) == {"prepaid": 40}
    assert_ledger_holds()


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
