"""Shards with little in them are settled in one transaction, and none of them suffers for another."""

import threading

import pytest
from django.db import connection, transaction
from pytest_django import DjangoAssertNumQueries

from billing.models import LedgerAccount, UsageQuarantine, UsageRecord
from billing.settlement.batch import SETTLEMENT_LOCK, settle_batches
from billing.shards import shard_of
from billing.usage_stream import StreamEntry
from tests.billing.ledger_factory import (
    KEY,
    USD,
    assert_ledger_holds,
    entry_of,
    give,
    make_event,
    make_organization,
    posted,
    settle,
)

pytestmark = pytest.mark.django_db(transaction=True)


def waiting_of(*organization_ids: int) -> dict[int, list[StreamEntry]]:
    return {shard_of(each): [] for each in organization_ids}


def test_many_shards_take_as_many_statements_as_one(django_assert_max_num_queries: DjangoAssertNumQueries) -> None:
    organizations = [make_organization(f"Number {number}") for number in range(8)]
    waiting = waiting_of(*(each.pk for each in organizations))
    assert len(waiting) == 8
    for organization in organizations:
        give(organization, USD)
        settle(make_event(organization, 1))  # Its shard's accounts are made.
        waiting[shard_of(organization.pk)] = [
            entry_of(make_event(organization, 1_000)),
            entry_of(make_event(organization, 0, usage_source="orphan", upstream_cost_nanos=7)),
        ]
    one = shard_of(organizations[0].pk)
    with django_assert_max_num_queries(40) as context:
        settle_batches({one: waiting.pop(one)})
    with django_assert_max_num_queries(len(context)):
        batches = settle_batches(waiting)
    assert {shard: batch.inserted for shard, batch in batches.items()} == dict.fromkeys(waiting, 2)
    for organization in organizations[1:]:
        batch = batches[shard_of(organization.pk)]
        assert [credit.organization_id for credit in batch.balances] == [organization.pk]
        assert {(day.scope, day.holder_id) for day in batch.posted_days} == {("org", organization.pk), ("key", KEY)}
        assert batch.stream_ids == [entry.stream_id for entry in waiting[batch.shard]]
    assert [posted(organization) for organization in organizations] == [USD - 1_001] * 8
    losses = LedgerAccount.objects.filter(kind="orphan_loss").values_list("shard", "balance_nanos")
    assert dict(losses) == dict.fromkeys([one, *waiting], -7)
    assert_ledger_holds()


def test_an_event_at_fault_and_a_busy_shard_hold_up_no_other_shard() -> None:
    fine, faulty, busy = (make_organization(name) for name in ("Fine", "Faulty", "Busy"))
    for organization in (fine, faulty, busy):
        give(organization, USD)
    waiting = waiting_of(fine.pk, faulty.pk, busy.pk)
    for organization in (fine, faulty, busy):
        waiting[shard_of(organization.pk)] = [entry_of(make_event(organization, 10)) for _ in range(3)]
    # Only the database finds this out, in the transaction that settles all of them.
    bad = make_event(faulty, 10, attempts=[{"error": "a\x00b"}])
    waiting[shard_of(faulty.pk)].insert(1, entry_of(bad))
    holds, done = threading.Event(), threading.Event()

    def hold_lock() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [SETTLEMENT_LOCK, shard_of(busy.pk)])
            holds.set()
            done.wait(20)
        connection.close()

    other = threading.Thread(target=hold_lock)
    other.start()
    try:
        assert holds.wait(20)
        batches = settle_batches(waiting)
    finally:
        done.set()
        other.join()
    assert {shard: (batch.inserted, batch.quarantined) for shard, batch in batches.items()} == {
        shard_of(fine.pk): (3, 0),
        shard_of(faulty.pk): (3, 1),
    }
    assert UsageQuarantine.objects.get().shard == shard_of(faulty.pk)
    assert UsageRecord.objects.filter(organization_id=busy.pk).count() == 0
    assert [posted(each) for each in (fine, faulty, busy)] == [USD - 30, USD - 30, USD]
    batches = settle_batches(waiting)
    assert sum(batch.inserted for batch in batches.values()) == 3
