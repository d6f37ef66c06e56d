"""Sums by end user, tag and session: exact, within a bound, and what does not add up is found."""

import random
from datetime import UTC, date, datetime
from typing import Any

import pytest

from accounts.models import Organization
from billing.checks.books import Books
from billing.checks.roll_ups import attributed_days_sum_records, days_sum_hours
from billing.models import AttributedDay, RequestDetail, UsageDay, UsageHour
from billing.reconciliation.roll_ups import compare_roll_ups
from billing.settlement import attributed_days
from billing.usage_event import UsageEvent
from tests.billing.ledger_factory import (
    USD,
    assert_ledger_holds,
    entry_of,
    give,
    make_event,
    make_organization,
    settle,
    settle_entries,
)
from tests.support.settled_usage import request_id_at

pytestmark = pytest.mark.django_db
OTHER = AttributedDay.OTHER
NOON = datetime(2026, 3, 3, 12, tzinfo=UTC)
DAY = date(2026, 3, 3)


@pytest.fixture
def acme() -> Organization:
    organization = make_organization()
    give(organization, USD)
    return organization


def used(organization: Organization, cost_nanos: int, **values: Any) -> UsageEvent:
    """A request of the third of March."""
    values = {"request_id": request_id_at(NOON).hex, "admitted_at_ms": int(NOON.timestamp() * 1000), **values}
    return make_event(organization, cost_nanos, **values)


def sums() -> dict[tuple[str, str, str], tuple[int, int]]:
    rows = AttributedDay.objects.values_list("end_user", "tag", "session", "requests", "cost_nanos")
    return {row[:3]: row[3:] for row in rows}


def test_requests_are_summed_by_whom_they_name_once(acme: Organization) -> None:
    alice = {"end_user": "alice", "tag": "ci", "session": "s-1"}
    events = [
        used(acme, 10, first_byte_ms=3, **alice),
        used(acme, 20, **alice),
        used(acme, 5, tag="ci"),
        used(acme, 7),  # It names nobody.
        used(acme, 0, outcome="failed", **alice),
    ]
    entries = [entry_of(event) for event in events]
    settle_entries(entries)
    settle_entries(entries)
    assert sums() == {("alice", "ci", "s-1"): (2, 30), ("", "ci", ""): (1, 5)}
    row = AttributedDay.objects.get(end_user="alice")
    assert (row.day, row.input_tokens, row.timed_requests, row.first_byte_ms, row.duration_ms) == (DAY, 30, 1, 3, 5)
    day = UsageDay.objects.get()
    assert (day.day, day.requests, day.cost_nanos, day.timed_requests, day.duration_ms) == (DAY, 4, 42, 1, 5)
    assert_ledger_holds()


def test_the_truth_about_an_orphan_is_counted_instead(acme: Organization) -> None:
    for true_cost in (30, 0):
        event = used(acme, true_cost, end_user="alice")
        same = {"request_id": event.request_id, "price_version_id": event.price_version_id}
        settle(used(acme, 12, end_user="alice", usage_source="orphan", **same))
        settle(event if true_cost else used(acme, 0, outcome="failed", end_user="alice", **same))
    assert sums() == {("alice", "", ""): (1, 30)}
    assert_ledger_holds()


def test_a_request_that_failed_first_counts_when_it_is_billed(acme: Organization) -> None:
    failed = used(acme, 0, outcome="failed", tag="ci")
    settle(failed)
    assert sums() == {}
    settle(used(acme, 9, tag="ci", request_id=failed.request_id))
    assert sums() == {("", "ci", ""): (1, 9)}
    assert_ledger_holds()


def test_what_is_beyond_the_bound_is_summed_as_other(acme: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributed_days, "MAX_EXACT_ROWS", 2)
    monkeypatch.setattr(attributed_days, "MAX_COARSE_ROWS", 1)
    for number in (1, 2, 3, 4):
        settle(used(acme, 10, end_user="alice", session=f"s-{number}"))
    settle(used(acme, 1, end_user="bob"), used(acme, 1, tag="a", end_user="bob"))
    settle(used(acme, 10, end_user="alice", session="s-1"))
    march = AttributedDay.objects.filter(day=DAY).values_list("end_user", "tag", "session", "cost_nanos")
    assert set(march) == {
        ("alice", "", "s-1", 20),
        ("alice", "", "s-2", 10),
        ("alice", "", OTHER, 20),
        (OTHER, OTHER, OTHER, 2),
    }
    assert_ledger_holds()


def test_any_order_of_events_adds_up_within_the_bound(acme: Organization, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributed_days, "MAX_EXACT_ROWS", 6)
    monkeypatch.setattr(attributed_days, "MAX_COARSE_ROWS", 3)
    chance = random.Random(7)
    events = []
    for number in range(60):
        named = {name: chance.choice(["", "a", "b", "c"]) for name in ("end_user", "tag", "session")}
        source = "orphan" if number % 3 else "provider"
        events.append(used(acme, 10 + number, usage_source=source, **named))
    for start in range(0, 60, 9):
        settle(*events[start : start + 9])
    truths = [event for event in events if event.usage_source == "orphan"]
    for event in truths:
        event.usage_source, event.cost_nanos, event.input_tokens = "provider", 3, 3
    settle(*truths)
    assert AttributedDay.objects.count() <= 6 + 3 + 1
    assert compare_roll_ups(DAY)[1] == []
    assert_ledger_holds()


def test_a_sum_that_was_changed_is_found(acme: Organization) -> None:
    settle(used(acme, 10, end_user="alice"))
    AttributedDay.objects.update(cost_nanos=11)
    UsageDay.objects.update(requests=2)
    [found] = compare_roll_ups(DAY)[1]
    assert (found.subject, found.amount_nanos) == (f"attributed_day:{DAY}:{acme.pk}", 1)
    assert (len(attributed_days_sum_records(Books()).breaks), len(days_sum_hours(Books()).breaks)) == (1, 1)


def test_workers_of_the_version_before_keep_days_too(acme: Organization) -> None:
    """They write neither times nor marks of attribution; what they settled is no break."""
    settle(used(acme, 10, end_user="alice"))
    UsageHour.objects.create(organization_id=1, key_id=2, model_id="m", hour=datetime(2026, 3, 3, tzinfo=UTC))
    UsageHour.objects.filter(organization_id=1).update(requests=5)
    assert UsageDay.objects.get(organization_id=1).requests == 5
    UsageHour.objects.filter(organization_id=1).update(requests=0)
    AttributedDay.objects.all().delete()
    RequestDetail.objects.update(is_attributed=False)
    assert compare_roll_ups(DAY)[1] == []
