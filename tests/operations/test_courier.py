"""From an alert to the customer's server, over real HTTP: signed, in time for everybody, again after a crash."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from django.utils import timezone
from pytest_django import Settings
from standardwebhooks import Webhook

from billing.alerts.book import clear_alert
from billing.alerts.notices import queue_notices
from billing.models import Alert, WebhookDelivery, WebhookEndpoint
from billing.webhooks.deliveries import LEASE_SECONDS, claim_deliveries, replay
from billing.webhooks.endpoints import add_endpoint, rotate_secret
from billing.webhooks.queue import queue_test
from operations import courier, tasks
from operations.courier import Courier, deliver_webhooks
from tests.support.people import People, make_people
from tests.support.spending import raise_some_alert
from tests.support.together import run_together
from tests.support.webhook_server import BROKEN, OK, WebhookServer

pytestmark = pytest.mark.django_db


@pytest.fixture
def people() -> People:
    return make_people()


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    with WebhookServer() as server:
        yield server


def test_an_alert_arrives_signed_and_says_what_it_is(people: People, server: WebhookServer) -> None:
    _, secret = add_endpoint(people.organization, url=server.url, created_by=people.alice)
    alert = raise_some_alert(people.organization, key_id=people.key.pk)
    queue_notices()
    assert deliver_webhooks() == 1
    clear_alert(people.organization, Alert.Kind.PAYMENT_FAILED)
    queue_notices()
    assert deliver_webhooks() == 1
    raised, cleared = (Webhook(secret).verify(each.body, each.headers) for each in server.received)
    assert raised == {
        "type": "alert.raised",
        "timestamp": raised["timestamp"],
        "data": {
            "alert_id": f"alert_{alert.pk}",
            "kind": "payment_failed",
            "organization": "alice",
            "subject": "",
            "key": {
                "id": people.key.pk,
                "name": "Backend",
                "prefix": people.key.prefix,
                "last_four": people.key.last_four,
            },
            "raised_at": alert.raised_at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "cleared_at": None,
            "details": {"reason": "declined"},
        },
    }
    assert (cleared["type"], cleared["data"]["alert_id"]) == ("alert.cleared", f"alert_{alert.pk}")
    assert cleared["data"]["cleared_at"] is not None
    assert people.secret not in server.received[0].body.decode()


def test_the_id_stays_and_the_signature_is_new_over_retries_and_replays(people: People, server: WebhookServer) -> None:
    endpoint, secret = add_endpoint(people.organization, url=server.url, created_by=people.alice)
    queue_test(endpoint)
    server.answer = BROKEN
    deliver_webhooks()
    new_secret = rotate_secret(endpoint)
    server.answer = OK
    WebhookDelivery.objects.update(next_attempt_at=timezone.now())
    deliver_webhooks()
    replay(WebhookDelivery.objects.get())
    deliver_webhooks()
    assert len({received.headers["webhook-id"] for received in server.received}) == 1
    assert len({received.body for received in server.received}) == 1
    assert [received.headers["webhook-signature"].count("v1,") for received in server.received] == [1, 2, 2]
    for received in server.received[1:]:
        for each in (secret, new_secret):
            Webhook(each).verify(received.body, received.headers)
    assert [attempt["status"] for attempt in WebhookDelivery.objects.get().attempts] == [500, 200, 200]


def test_amounts_travel_as_decimal_dollars(people: People, server: WebhookServer) -> None:
    add_endpoint(people.organization, url=server.url, created_by=people.alice)
    alert = raise_some_alert(people.organization)
    alert.details = {"available_nanos": -1_500_000_000, "low_balance_nanos": 30 * 10**9, "percent": 80}
    alert.save()
    queue_notices()
    deliver_webhooks()
    data = json.loads(server.received[0].body)["data"]
    assert data["details"] == {"available_usd": "-1.50", "low_balance_usd": "30.00", "percent": 80}


def test_a_slow_endpoint_holds_up_nobody_else(people: People, server: WebhookServer) -> None:
    release = threading.Event()

    def wait(write: Callable[[bytes], None]) -> None:
        release.wait(30)
        write(OK)

    with WebhookServer(wait) as slow:
        slow_endpoint, _ = add_endpoint(people.organization, url=slow.url, created_by=None)
        fast_endpoint, _ = add_endpoint(people.charlies, url=server.url, created_by=None)
        queue_test(slow_endpoint)
        fast = [queue_test(fast_endpoint) for _ in range(5)]
        answered: list[int] = []

        def watch() -> None:
            ends_at = time.monotonic() + 20
            while len(server.received) < len(fast) and time.monotonic() < ends_at:
                time.sleep(0.02)
            answered.append(len(server.received))
            release.set()

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert deliver_webhooks() == 6
        watcher.join()
        assert answered == [5]  # All of them while the slow one still waited.


def test_a_private_address_is_refused_at_delivery(people: People, server: WebhookServer, settings: Settings) -> None:
    endpoint, _ = add_endpoint(people.organization, url=server.url, created_by=None)
    queue_test(endpoint)
    settings.WEBHOOK_NETWORKS = []
    deliver_webhooks()
    assert server.received == []
    [attempt] = WebhookDelivery.objects.get().attempts
    assert attempt["problem"] == "The name 127.0.0.1 leads to an address that is not public."


def test_a_secret_that_cannot_be_read_is_told_and_rotation_mends_it(
    people: People, server: WebhookServer, settings: Settings
) -> None:
    endpoint, _ = add_endpoint(people.organization, url=server.url, created_by=None)
    queue_test(endpoint)
    settings.SECRET_KEY = "another"
    deliver_webhooks()
    [attempt] = WebhookDelivery.objects.get().attempts
    assert attempt["problem"] == "The secret cannot be read any more: rotate it."
    rotate_secret(endpoint)
    WebhookEndpoint.objects.update(sealed_previous_secret="")
    WebhookDelivery.objects.update(next_attempt_at=timezone.now())
    deliver_webhooks()
    assert len(server.received) == 1


def test_a_courier_that_died_is_followed_by_another_under_the_same_id(people: People, server: WebhookServer) -> None:
    endpoint, _ = add_endpoint(people.organization, url=server.url, created_by=None)
    queue_test(endpoint)
    [taken] = claim_deliveries(limit=1)  # And is never heard of again.
    assert deliver_webhooks() == 0
    WebhookDelivery.objects.update(claimed_until=timezone.now() - timedelta(seconds=LEASE_SECONDS))
    assert deliver_webhooks() == 1
    assert [received.headers["webhook-id"] for received in server.received] == [taken.event_id]


@pytest.mark.django_db(transaction=True)
def test_couriers_at_once_deliver_everything_once(server: WebhookServer) -> None:
    people = make_people()
    endpoint, _ = add_endpoint(people.organization, url=server.url, created_by=None)
    other, _ = add_endpoint(people.charlies, url=server.url, created_by=None)
    sent = {queue_test(each).event_id for each in (endpoint, other) for _ in range(5)}
    assert run_together(*[deliver_webhooks] * 4) == []
    deliver_webhooks()
    received = [each.headers["webhook-id"] for each in server.received]
    assert (len(received), set(received)) == (10, sent)


def test_a_courier_is_one_at_a_time_and_returns_at_once() -> None:
    release, runs = threading.Event(), []

    def errand() -> None:
        runs.append(1)
        release.wait(10)

    called = Courier("test", errand)
    called.call()
    called.call()
    assert runs == [1]
    release.set()
    ends_at = time.monotonic() + 10
    while len(runs) < 2 and time.monotonic() < ends_at:
        called.call()
        time.sleep(0.01)
    assert len(runs) >= 2


@pytest.mark.django_db(transaction=True)
def test_the_trigger_brings_an_alert_to_mailbox_and_endpoint(server: WebhookServer, settings: Settings) -> None:
    """The whole way as the worker goes it: the look, the notice, and the courier in its own thread."""
    people = make_people()
    add_endpoint(people.organization, url=server.url, created_by=None)
    raise_some_alert(people.organization)
    tasks.look_for_alerts()
    tasks.send_what_waits()
    ends_at = time.monotonic() + 20
    while not server.received and time.monotonic() < ends_at:
        time.sleep(0.02)
    assert len(server.received) == 1
    for each in (courier.MAIL, courier.WEBHOOKS):
        with each._lock:  # Until its thread has closed its connection.
            pass
    assert WebhookDelivery.objects.get().state == "delivered"
