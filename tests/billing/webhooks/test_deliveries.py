"""Deliveries without the network: who may take one, when it comes again, when an endpoint is given up, and replays."""

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.models import Organization
from billing.alerts.notices import queue_notices
from billing.models import Alert, WebhookDelivery, WebhookEndpoint
from billing.webhooks.deliveries import (
    KEPT,
    LEASE_SECONDS,
    MAX_AT_ONCE_PER_ORGANIZATION,
    SPREAD,
    SWITCH_OFF_AFTER,
    WAITS_SECONDS,
    Answer,
    claim_deliveries,
    count_late_deliveries,
    forget_old_deliveries,
    note_answer,
    replay,
    replay_missed,
)
from billing.webhooks.endpoints import add_endpoint, remove_endpoint, switch_off, switch_on
from billing.webhooks.queue import queue_test
from tests.billing.ledger_factory import make_organization
from tests.support.spending import open_kinds, raise_some_alert

pytestmark = pytest.mark.django_db

DELIVERED = Answer(200, "", "ok", 12)
REFUSED = Answer(500, "It answered 500.", "sorry", 12)
GONE = Answer(410, "It answered 410.", "", 12)


@pytest.fixture
def acme() -> Organization:
    return make_organization()


@pytest.fixture
def endpoint(acme: Organization) -> WebhookEndpoint:
    return add_endpoint(acme, url="https://example.org/hook", created_by=None)[0]


def make_due() -> None:
    WebhookDelivery.objects.update(next_attempt_at=timezone.now())


def attempt(answer: Answer) -> WebhookDelivery:
    """Claim the one that is due, and note what came of it."""
    make_due()
    [delivery] = claim_deliveries(limit=10)
    note_answer(delivery, answer)
    delivery.refresh_from_db()
    return delivery


def test_one_of_an_endpoint_at_a_time_and_a_few_of_an_organization(acme: Organization) -> None:
    endpoints = [add_endpoint(acme, url=f"https://example.org/{number}", created_by=None)[0] for number in range(4)]
    other = add_endpoint(make_organization("Other"), url="https://example.org/", created_by=None)[0]
    first = [queue_test(endpoint) for endpoint in endpoints]
    for endpoint in endpoints:
        queue_test(endpoint)
    theirs = queue_test(other)
    taken = claim_deliveries(limit=10)
    assert [delivery.pk for delivery in taken] == [first[0].pk, first[1].pk, theirs.pk]
    assert len(taken) == MAX_AT_ONCE_PER_ORGANIZATION + 1
    assert claim_deliveries(limit=10) == []
    note_answer(taken[0], DELIVERED)
    assert [delivery.endpoint_id for delivery in claim_deliveries(limit=10)] == [endpoints[2].pk]  # It waited longest.


def test_nothing_is_taken_twice_until_the_lease_is_over(endpoint: WebhookEndpoint) -> None:
    queue_test(endpoint)
    [taken] = claim_deliveries(limit=10)
    assert claim_deliveries(limit=10) == []
    WebhookDelivery.objects.update(claimed_until=timezone.now() - timedelta(seconds=1))
    [again] = claim_deliveries(limit=10)
    assert (again.pk, again.event_id) == (taken.pk, taken.event_id)
    # Whoever had it first comes back late, and changes nothing.
    note_answer(taken, REFUSED)
    again.refresh_from_db()
    assert (again.state, again.attempts) == ("waiting", [])
    note_answer(again, DELIVERED)
    assert WebhookDelivery.objects.get().state == "delivered"
    assert LEASE_SECONDS > 60


def test_what_fails_is_tried_ten_times_over_three_days(endpoint: WebhookEndpoint) -> None:
    queue_test(endpoint)
    for number, wait in enumerate(WAITS_SECONDS, 1):
        before = timezone.now()
        delivery = attempt(REFUSED)
        seconds = (delivery.next_attempt_at - before).total_seconds()
        assert wait <= seconds <= wait * (1 + SPREAD) + 5
        assert (delivery.state, len(delivery.attempts)) == ("waiting", number)
    assert attempt(REFUSED).state == "failed"
    assert 3 <= sum(WAITS_SECONDS) / 86_400 <= 4
    make_due()
    assert claim_deliveries(limit=10) == []


def test_an_attempt_is_kept_with_its_answer(endpoint: WebhookEndpoint) -> None:
    queue_test(endpoint)
    attempt(Answer(None, "The connection failed: x\x00y.", "", 3))
    delivery = attempt(Answer(200, "", "o\x00k" * 500, 12))
    assert [(each["status"], each["problem"], each["ms"]) for each in delivery.attempts] == [
        (None, "The connection failed: x y.", 3),
        (200, "", 12),
    ]
    assert (delivery.state, len(delivery.answer)) == ("delivered", 500)


def test_the_first_failure_is_told_and_the_next_success_clears_it(
    acme: Organization, endpoint: WebhookEndpoint
) -> None:
    queue_test(endpoint)
    attempt(REFUSED)
    alert = Alert.objects.get()
    assert (alert.kind, alert.subject) == ("webhook_failing", f"endpoint:{endpoint.pk}")
    assert alert.details == {"host": "example.org", "status": 500, "problem": "It answered 500."}
    attempt(REFUSED)
    assert Alert.objects.count() == 1
    attempt(DELIVERED)
    assert open_kinds(acme) == []
    endpoint.refresh_from_db()
    assert endpoint.failing_since is None


def test_an_endpoint_that_fails_for_days_is_switched_off_and_that_is_told(
    acme: Organization, endpoint: WebhookEndpoint
) -> None:
    watcher, _ = add_endpoint(acme, url="https://example.org/watcher", kinds=["webhook_switched_off"], created_by=None)
    queue_test(endpoint)
    attempt(REFUSED)
    WebhookEndpoint.objects.filter(pk=endpoint.pk).update(failing_since=timezone.now() - SWITCH_OFF_AFTER)
    attempt(REFUSED)
    endpoint.refresh_from_db()
    assert endpoint.switched_off_reason.startswith("It has failed since ")
    assert open_kinds(acme) == ["webhook_switched_off"]
    assert WebhookDelivery.objects.get().state == "failed"
    queue_notices()
    # The others hear of it, the endpoint itself does not.
    assert list(WebhookDelivery.objects.exclude(event_type="webhook.test").values_list("endpoint_id", flat=True)) == [
        watcher.pk
    ]
    switch_on(endpoint)
    assert open_kinds(acme) == []


def test_an_endpoint_that_says_gone_is_switched_off_at_once(acme: Organization, endpoint: WebhookEndpoint) -> None:
    queue_test(endpoint)
    attempt(GONE)
    endpoint.refresh_from_db()
    assert (endpoint.is_on, endpoint.switched_off_reason) == (False, "It answered 410 Gone.")
    assert open_kinds(acme) == ["webhook_switched_off"]


def test_a_success_after_the_lease_of_another_does_not_switch_it_off(endpoint: WebhookEndpoint) -> None:
    """What was missed for days, then delivered, begins a new count."""
    queue_test(endpoint)
    attempt(REFUSED)
    WebhookEndpoint.objects.update(failing_since=timezone.now() - SWITCH_OFF_AFTER * 2)
    attempt(DELIVERED)
    queue_test(endpoint)
    attempt(REFUSED)
    endpoint.refresh_from_db()
    assert endpoint.is_on


def test_a_replay_keeps_its_id_and_its_attempts(endpoint: WebhookEndpoint) -> None:
    queue_test(endpoint)
    before = attempt(DELIVERED)
    assert replay(before) is True
    assert replay(before) is False  # It is on its way already.
    after = attempt(DELIVERED)
    assert (after.pk, after.event_id, after.body) == (before.pk, before.event_id, before.body)
    assert (len(after.attempts), after.attempt_count) == (2, 1)


def test_what_an_endpoint_missed_while_it_was_off_is_kept_and_replayed(
    acme: Organization, endpoint: WebhookEndpoint
) -> None:
    switch_off(endpoint, reason="By hand.")
    alerts = [raise_some_alert(acme, subject=str(number)) for number in range(3)]
    queue_notices()
    assert claim_deliveries(limit=10) == []
    assert replay_missed(endpoint) == 0
    switch_on(endpoint)
    assert claim_deliveries(limit=10) == []
    assert replay_missed(endpoint) == 3
    seen = []
    while taken := claim_deliveries(limit=10):
        seen.append(taken[0].event_id)
        note_answer(taken[0], DELIVERED)
    assert seen == [f"evt_alert_{alert.pk}_raised" for alert in alerts]


def test_a_removed_endpoint_gets_nothing_more(endpoint: WebhookEndpoint) -> None:
    queue_test(endpoint)
    remove_endpoint(endpoint)
    make_due()
    assert claim_deliveries(limit=10) == []
    assert replay(WebhookDelivery.objects.get()) is False


def test_deliveries_that_nobody_sends_are_noticed(endpoint: WebhookEndpoint) -> None:
    queue_test(endpoint)
    assert count_late_deliveries() == 0
    WebhookDelivery.objects.update(next_attempt_at=timezone.now() - timedelta(minutes=16))
    assert count_late_deliveries() == 1
    switch_off(endpoint, reason="By hand.")
    assert count_late_deliveries() == 0


def test_deliveries_are_kept_for_a_month(endpoint: WebhookEndpoint) -> None:
    old, new = queue_test(endpoint), queue_test(endpoint)
    WebhookDelivery.objects.filter(pk=old.pk).update(created_at=timezone.now() - KEPT - timedelta(seconds=1))
    assert forget_old_deliveries() == 1
    assert WebhookDelivery.objects.get() == new
