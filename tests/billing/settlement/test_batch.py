"""Settlement: every event once, never refused, and the event at fault in quarantine instead of in the way."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from accounts.models import Organization
from billing.models import (
    BudgetDay,
    FailedRequest,
    LedgerTransaction,
    OrganizationBalance,
    RequestDetail,
    UsageHour,
    UsageRecord,
)
from billing.settlement.batch import SETTLEMENT_LOCK, settle_batch
from billing.shards import SHARD_COUNT, shard_of
from billing.usage.budgets import posted_nanos_by_day
from billing.usage_stream import PostedDay, SpendableCredit
from tests.billing.ledger_factory import (
    KEY,
    USD,
    account_balances,
    assert_ledger_holds,
    entries_of,
    entry_of,
    give,
    make_event,
    make_failed_event,
    make_organization,
    make_price,
    posted,
    remaining,
    settle,
    settle_entries,
)

pytestmark = pytest.mark.django_db


def organizations_of_one_shard(count: int) -> list[Organization]:
    """Organizations whose ids differ by the number of shards, so that one worker settles them together."""
    first = make_organization()
    return [first] + [
        Organization.objects.create(
            id=first.pk + number * SHARD_COUNT, name="Neighbour", slug=f"neighbour-{first.pk}-{number}"
        )
        for number in range(1, count)
    ]


def test_a_batch_becomes_records_one_debit_and_roll_ups() -> None:
    organization = make_organization()
    lot = give(organization, USD)
    events = [make_event(organization, cost) for cost in (1_000, 2_000, 0)]
    batch = settle(*events)
    records = {record.request_id.hex: record for record in UsageRecord.objects.all()}
    assert set(records) == {event.request_id for event in events}
    ledger = LedgerTransaction.objects.get(kind="usage")
    assert ledger.idempotency_key == f"usage:{events[0].request_id}"
    assert [records[event.request_id].ledger_transaction_id for event in events] == [ledger.pk, ledger.pk, None]
    assert entries_of(ledger.pk) == {"prepaid": -3_000, "revenue": 3_000}
    assert remaining(lot) == [USD - 3_000]
    assert posted(organization) == USD - 3_000
    hour = UsageHour.objects.get()
    assert (hour.requests, hour.input_tokens, hour.cost_nanos) == (3, 3_000, 3_000)
    assert set(BudgetDay.objects.values_list("key_id", "cost_nanos")) == {(KEY, 3_000), (0, 3_000)}
    assert (batch.inserted, batch.quarantined, len(batch.stream_ids)) == (3, 0, 3)
    assert_ledger_holds()


def test_a_record_keeps_what_the_event_says() -> None:
    organization = make_organization()
    price = make_price()
    event = make_event(
        organization,
        1_000,
        price_version_id=price.pk,
        input_tokens=500,
        output_tokens=100,
        attempts=[{"upstream": "acme", "status": 200}],
        is_streamed=True,
        first_byte_ms=12,
        total_ms=34,
        upstream_cost_nanos=77,
        end_user="user-1",
        tag="t" * 99,
        session="s-1",
        client="x" * 500,
        admitted_at_ms=1_780_000_000_123,
    )
    settle(event)
    record = UsageRecord.objects.get(pk=event.request_id)
    assert (record.input_tokens, record.output_tokens, record.cost_nanos) == (500, 100, 1_000)
    assert record.attempts == [{"upstream": "acme", "status": 200}]
    assert (record.is_streamed, record.first_byte_ms, record.total_ms) == (True, 12, 34)
    assert record.admitted_at == datetime(2026, 5, 28, 20, 26, 40, 123_000, tzinfo=UTC)
    assert (record.upstream_cost_nanos, record.hold_nanos, record.price_version_id) == (77, 1_000, price.pk)
    detail = RequestDetail.objects.get(pk=event.request_id)
    assert (detail.end_user, detail.tag, detail.session) == ("user-1", "t" * 64, "s-1")
    assert detail.client == "x" * 200


def test_an_event_of_the_version_before_is_settled() -> None:
    """It names neither a tag nor a session: its gateway is still of that version."""
    event = make_event(make_organization(), 1_000, end_user="user-1")
    values = json.loads(event.encode())
    del values["tag"], values["session"]
    assert settle_entries([entry_of(event, raw_event=json.dumps(values).encode())]).inserted == 1
    detail = RequestDetail.objects.get(pk=event.request_id)
    assert (detail.end_user, detail.tag, detail.session) == ("user-1", "", "")


def test_a_batch_that_is_settled_again_changes_nothing() -> None:
    organization = make_organization()
    give(organization, USD)
    entries = [entry_of(make_event(organization)) for _ in range(3)] + [entry_of(make_failed_event(organization))]
    first = settle_entries(entries)
    again = settle_entries(entries)
    assert (first.inserted, again.inserted) == (3, 0)
    # Redis may have missed the first confirmation, so it is told all of it again.
    assert again.stream_ids == first.stream_ids
    assert again.balances == first.balances
    assert again.posted_days == first.posted_days
    assert posted(organization) == USD - 3_000
    assert LedgerTransaction.objects.filter(kind="usage").count() == 1
    assert_ledger_holds()


def test_a_batch_that_overlaps_an_earlier_one_debits_what_is_new() -> None:
    organization = make_organization()
    give(organization, USD)
    old, new = make_event(organization, 5), make_event(organization, 7)
    settle(old)
    assert settle(old, new, new).inserted == 1
    assert posted(organization) == USD - 12
    assert_ledger_holds()


def test_redis_is_told_spendable_credit_and_what_days_have_posted() -> None:
    organization = make_organization()
    give(organization, 100)
    day = 20_000
    settle(make_event(organization, 10, admitted_day=day))
    batch = settle(make_event(organization, 7, admitted_day=day), make_event(organization, 3, admitted_day=day + 1))
    assert batch.balances == [SpendableCredit(organization.pk, 80, 3)]
    assert list(batch.posted_days) == [
        PostedDay("org", organization.pk, day, 17),
        PostedDay("org", organization.pk, day + 1, 3),
        PostedDay("key", KEY, day, 17),
        PostedDay("key", KEY, day + 1, 3),
    ]
    assert posted_nanos_by_day(organization_id=organization.pk, first_day=day + 1) == {day + 1: 3}
    assert posted_nanos_by_day(organization_id=organization.pk, key_id=KEY, first_day=0) == {day: 17, day + 1: 3}


def test_settlement_never_refuses_for_a_low_balance() -> None:
    organization = make_organization()
    give(organization, 100, kind="promotional")
    settle(make_event(organization, 250))
    assert account_balances(organization) == {"receivable": -150}
    assert posted(organization) == -150
    assert_ledger_holds()


def test_many_organizations_settle_in_as_many_statements_as_one(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    organizations = organizations_of_one_shard(12)
    for organization in organizations:
        give(organization, USD)
    few = [entry_of(make_event(organizations[0])) for _ in range(2)]
    many = [entry_of(make_event(organization)) for organization in organizations for _ in range(20)]
    with django_assert_max_num_queries(30) as context:
        settle_entries(few)
    with django_assert_max_num_queries(len(context)):
        batch = settle_entries(many)
    assert batch.inserted == 240
    assert [posted(organization) for organization in organizations] == [USD - 22_000] + [USD - 20_000] * 11
    assert LedgerTransaction.objects.filter(kind="usage").count() == 13
    assert_ledger_holds()


def test_an_event_of_an_orphan_takes_its_day_from_the_entry() -> None:
    """The gateway wrote the event before admission stamped the day."""
    organization = make_organization()
    event = make_event(organization, 5, usage_source="orphan", admitted_day=0)
    settle_entries([entry_of(event, admitted_day=20_001)])
    assert UsageRecord.objects.get().admitted_day == 20_001
    assert BudgetDay.objects.get(key_id=KEY).admitted_day == 20_001


def test_orphans_without_a_checkpoint_are_the_houses_loss() -> None:
    organization = make_organization()
    batch = settle(
        make_event(organization, 0, usage_source="orphan", upstream_cost_nanos=40),
        make_event(organization, 0, usage_source="orphan", upstream_cost_nanos=2),
        make_event(organization, 10, usage_source="orphan", upstream_cost_nanos=7),
        make_event(organization, 0, usage_source="provider", upstream_cost_nanos=9),
    )
    assert batch.inserted == 4
    ledger = LedgerTransaction.objects.get(kind="orphan_loss")
    assert ledger.organization is None
    assert entries_of(ledger.pk) == {"orphan_loss": -42, "upstream_cost": 42}
    assert posted(organization) == -10
    assert_ledger_holds()


# --- One terminal state -------------------------------------------------------------------------------------------


def test_a_failed_request_is_recorded_and_costs_nothing() -> None:
    organization = make_organization()
    event = make_failed_event(organization, attempts=[{"upstream": "acme", "status": 500}], end_user="user-1")
    batch = settle(event)
    failed = FailedRequest.objects.get()
    assert (failed.request_id.hex, failed.error_code) == (event.request_id, "upstream_error")
    assert failed.attempts == [{"upstream": "acme", "status": 500}]
    assert RequestDetail.objects.get().end_user == "user-1"
    assert (batch.inserted, len(batch.stream_ids)) == (0, 1)
    assert not UsageRecord.objects.exists()
    assert not LedgerTransaction.objects.exists()


@pytest.mark.parametrize("is_one_batch", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "ends"),
    [
        ("billed", "failed", "billed"),
        ("failed", "billed", "billed"),
        ("failed", "orphan", "failed"),
        ("billed", "orphan", "billed"),
    ],
)
def test_a_request_that_is_told_of_twice_ends_in_one_state(
    first: str, second: str, ends: str, is_one_batch: bool
) -> None:
    organization = make_organization()
    billed = make_event(organization, 10)
    same = {"request_id": billed.request_id}
    events = {
        "billed": billed,
        "failed": make_failed_event(organization, **same),
        "orphan": make_event(organization, 6, usage_source="orphan", **same),
    }
    if is_one_batch:
        settle(events[first], events[second])
    else:
        settle(events[first])
        settle(events[second])
    assert UsageRecord.objects.count() == (ends == "billed")
    assert FailedRequest.objects.count() == (ends == "failed")
    balance = OrganizationBalance.objects.get(pk=organization.pk)
    assert balance.posted_nanos == (-10 if ends == "billed" else 0)
    assert_ledger_holds()


def test_an_orphan_is_corrected_by_the_first_truth_that_comes() -> None:
    """Its record stays, and whatever comes after the truth changes nothing."""
    organization = make_organization()
    orphan = make_event(organization, 6, usage_source="orphan")
    settle(orphan)
    settle(make_event(organization, 10, request_id=orphan.request_id))
    settle(make_failed_event(organization, request_id=orphan.request_id))
    assert UsageRecord.objects.get().cost_nanos == 6
    assert not FailedRequest.objects.exists()
    assert posted(organization) == -10


# --- Credit lots --------------------------------------------------------------------------------------------------


def test_a_lot_pays_for_what_was_admitted_before_it_expired() -> None:
    organization = make_organization()
    now = datetime.now(UTC)
    ending = give(organization, 100, kind="promotional", expires_at=now + timedelta(seconds=2))
    lasting = give(organization, 100)
    expiry_ms = int(now.timestamp() * 1000) + 2_000
    time.sleep((expiry_ms - time.time() * 1000) / 1000 + 0.05)
    settle(
        make_event(organization, 5, admitted_at_ms=expiry_ms + 10),
        make_event(organization, 30, admitted_at_ms=expiry_ms - 20),
        make_event(organization, 2, admitted_at_ms=expiry_ms + 20),
    )
    assert remaining(ending, lasting) == [70, 93]
    assert_ledger_holds()


def test_credit_that_redis_is_told_leaves_out_what_is_past_its_expiry() -> None:
    organization = make_organization()
    expires_at = (datetime.now(UTC) + timedelta(seconds=2)).replace(microsecond=1)
    give(organization, 100, expires_at=expires_at)
    give(organization, 50)
    told = f"{int(expires_at.timestamp()) * 1000 + 1}:100"
    assert settle(make_event(organization, 0)).balances == [SpendableCredit(organization.pk, 150, 2, told)]
    time.sleep((expires_at - datetime.now(UTC)).total_seconds() + 0.01)
    assert settle(make_event(organization, 1)).balances == [SpendableCredit(organization.pk, 49, 3)]


# --- Side by side -------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_a_shard_that_another_worker_settles_is_left_to_it() -> None:
    organization = make_organization()
    shard = shard_of(organization.pk)
    holds, done = threading.Event(), threading.Event()

    def hold_lock() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [SETTLEMENT_LOCK, shard])
            holds.set()
            done.wait(20)
        connection.close()

    entries = [entry_of(make_event(organization))]
    other = threading.Thread(target=hold_lock)
    other.start()
    try:
        assert holds.wait(20)
        assert settle_batch(shard, entries) is None
    finally:
        done.set()
        other.join()
    assert settle_entries(entries).inserted == 1


@pytest.mark.django_db(transaction=True)
def test_doubled_workers_settle_everything_once() -> None:
    organizations = organizations_of_one_shard(3)
    for organization in organizations:
        give(organization, USD)
    entries = [entry_of(make_event(organization, 10)) for _ in range(20) for organization in organizations]
    inserted: list[int] = []

    def work(order: int) -> None:
        for start in range(0, len(entries), 6):
            part = entries[start : start + 6][::order]
            while (batch := settle_batch(shard_of(organizations[0].pk), part)) is None:
                time.sleep(0.001)
            inserted.append(batch.inserted)
        connection.close()

    threads = [threading.Thread(target=work, args=(order,)) for order in (1, -1, 1)]
    for thread in threads:
        thread.start()
    for organization in organizations:
        give(organization, 1)
    for thread in threads:
        thread.join(60)
    assert sum(inserted) == 60
    assert [posted(organization) for organization in organizations] == [USD + 1 - 200] * 3
    assert_ledger_holds()


def test_an_empty_batch_is_settled_at_once() -> None:
    batch = settle_batch(3, [])
    assert batch is not None
    assert (batch.stream_ids, batch.balances, batch.inserted) == ([], [], 0)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    grants=st.lists(st.tuples(st.sampled_from(["paid", "promotional"]), st.integers(1, 60)), max_size=4),
    costs=st.lists(st.integers(0, 40), max_size=15),
    sent=st.lists(st.lists(st.integers(0, 14), max_size=8), max_size=5),
)
def test_however_events_are_batched_and_repeated_each_is_debited_once(
    grants: list[tuple[str, int]], costs: list[int], sent: list[list[int]]
) -> None:
    organization = make_organization()
    for kind, nanos in grants:
        give(organization, nanos, kind=kind)
    events = [make_event(organization, cost) for cost in costs]
    settled = set()
    for numbers in sent:
        numbers = [number for number in numbers if number < len(events)]
        if numbers:
            settle(*(events[number] for number in numbers))
            settled |= set(numbers)
    expected = sum(nanos for _, nanos in grants) - sum(costs[number] for number in settled)
    balance = OrganizationBalance.objects.filter(organization=organization).first()
    assert (balance.posted_nanos if balance else 0) == expected
    assert UsageRecord.objects.filter(organization_id=organization.pk).count() == len(settled)
    assert_ledger_holds()
