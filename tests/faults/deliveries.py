"""Webhooks to customers while their endpoint is down, and while the worker that sends them is killed.

The endpoint is the oracle: it keeps what it was sent. Each event reaches it at least once, always under its one id and
with the same body, signed; and whoever was told of an event twice can see by the id that it was one.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from django.utils import timezone
from standardwebhooks import Webhook, WebhookVerificationError

from billing.alerts.book import raise_alert
from billing.models import Alert, WebhookDelivery, WebhookEndpoint
from billing.webhooks.endpoints import add_endpoint
from billing.webhooks.queue import alert_event_id
from tests.faults.scenario import Scenario
from tests.support.payment_sandbox import wait_until
from tests.support.webhook_server import BROKEN, OK, WebhookServer

EVENTS = 8
KILLS = 3
SLOW_SECONDS = 1.5  # Between an event and the answer to it: the worker is killed within it.
DELIVERED_SECONDS = 60.0

State = WebhookDelivery.State


@dataclass
class Receiver:
    """A customer with an endpoint, and the events that are to reach it: `refused` is how many came before it was up."""

    server: WebhookServer
    endpoint: WebhookEndpoint
    secret: str
    wanted: set[str]
    refused: int = 0

    def ids(self) -> Counter[str]:
        return Counter(received.headers["webhook-id"] for received in list(self.server.received))

    def missing(self) -> set[str]:
        return self.wanted - {received.headers["webhook-id"] for received in self.server.received[self.refused :]}


def webhook_endpoint_down(scenario: Scenario) -> None:
    """It answers 500, closes the connection, or is not there at all; then it is back."""
    with _receiver(scenario, lambda write: write(scenario.chance.choice((BROKEN, b"")))) as receiver:
        wait_until(lambda: len(receiver.ids()) > 0, "A first event was refused", seconds=DELIVERED_SECONDS)
        scenario.pause()
        receiver.server.close()
        _hasten(receiver)
        scenario.pause()
        receiver.server.answer = OK
        receiver.refused = len(receiver.server.received)
        receiver.server.reopen()
        _judge(scenario, receiver)


def worker_killed_in_a_delivery(scenario: Scenario) -> None:
    """The endpoint has an event and has not answered yet when the worker dies: the event comes again."""

    def answer_slowly(write: Callable[[bytes], None]) -> None:
        time.sleep(SLOW_SECONDS)
        write(OK)

    with _receiver(scenario, answer_slowly) as receiver:
        for _ in range(KILLS):
            before = len(receiver.server.received)
            wait_until(partial(_has_more, receiver, before), "An event is sent", seconds=DELIVERED_SECONDS)
            time.sleep(scenario.chance.uniform(0.0, SLOW_SECONDS / 2))
            scenario.stack.kill_worker()
            _let_leases_end(receiver)
            scenario.stack.start_worker()
        receiver.server.answer = OK
        _judge(scenario, receiver)
        if max(receiver.ids().values(), default=0) < 2:
            scenario.notes.append("I16 no event came twice, although its sender died before it was answered")


@contextmanager
def _receiver(scenario: Scenario, answer: Callable[[Callable[[bytes], None]], None]) -> Iterator[Receiver]:
    """Give a tenant an endpoint, and raise alerts that it wants to hear of."""
    organization = scenario.rich.organization
    with WebhookServer(answer) as server:
        endpoint, secret = add_endpoint(
            organization, url=server.url, kinds=[Alert.Kind.PAYMENT_FAILED], created_by=None
        )
        scenario.stack.overrides["CROSSMODEL_COURIER_SECONDS"] = "0.3"
        try:
            scenario.stack.kill_worker()
            scenario.stack.start_worker()
            for number in range(EVENTS):
                raise_alert(organization, Alert.Kind.PAYMENT_FAILED, subject=f"order:{number}")
            alerts = Alert.objects.filter(organization=organization, kind=Alert.Kind.PAYMENT_FAILED)
            yield Receiver(server, endpoint, secret, {alert_event_id(alert) for alert in alerts})
        finally:
            del scenario.stack.overrides["CROSSMODEL_COURIER_SECONDS"]


def _judge(scenario: Scenario, receiver: Receiver) -> None:
    """I16: once the endpoint answers, everything reaches it, under its one id and signed."""
    ends_at = time.monotonic() + DELIVERED_SECONDS
    rows = WebhookDelivery.objects.filter(endpoint=receiver.endpoint)
    while rows.filter(state=State.DELIVERED).count() < len(receiver.wanted) and time.monotonic() < ends_at:
        _hasten(receiver)
        time.sleep(0.2)
    bodies: dict[str, set[bytes]] = {}
    for received in list(receiver.server.received):
        bodies.setdefault(received.headers["webhook-id"], set()).add(received.body)
        try:
            Webhook(receiver.secret).verify(received.body.decode(), received.headers)
        except WebhookVerificationError as error:
            scenario.notes.append(f"I16 event {received.headers['webhook-id']} is not signed: {error}")
    for event_id in receiver.missing():
        scenario.notes.append(f"I16 event {event_id} never reached its endpoint")
    scenario.notes += [f"I16 event {each} is nobody's" for each in receiver.ids().keys() - receiver.wanted]
    scenario.notes += [f"I16 event {each} had {len(texts)} bodies" for each, texts in bodies.items() if len(texts) > 1]
    left = rows.exclude(state=State.DELIVERED).count()
    if left:
        scenario.notes.append(f"I16 {left} deliveries are not delivered after {DELIVERED_SECONDS:g} s")


def _has_more(receiver: Receiver, before: int) -> bool:
    return len(receiver.server.received) > before


def _hasten(receiver: Receiver) -> None:
    """Let the waits after failures pass, which are minutes and hours. What is claimed now stays with who has it."""
    rows = WebhookDelivery.objects.filter(endpoint=receiver.endpoint, state=State.WAITING, claimed_until=None)
    rows.update(next_attempt_at=timezone.now())


def _let_leases_end(receiver: Receiver) -> None:
    """Let the time pass for which a sender, dead by now, has what it claimed."""
    WebhookDelivery.objects.filter(endpoint=receiver.endpoint, claimed_until__gt=timezone.now()).update(
        claimed_until=timezone.now()
    )
