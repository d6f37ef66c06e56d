"""The courier: sends what waits in the outboxes of mail and webhooks, in a thread beside the worker's own work.

A mail server or a customer's endpoint may take its time, and settlement must not wait for it. So the trigger only sees
to it that a courier is at work in this process, and returns. One that dies leaves what it had to the next: both
outboxes lend for a while, they never give away.
"""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from functools import partial

from django.db import DatabaseError, InterfaceError, connection

from accounts.sealing import LostSecretError
from billing.models import WebhookDelivery
from billing.watching import watched
from billing.webhooks.deliveries import Answer, claim_deliveries, note_answer
from billing.webhooks.endpoints import live_secrets
from billing.webhooks.secrets import sign
from operations.reconciliation import check_ledger_due, reconcile_due
from operations.reratings import post_decided
from operations.webhook_sender import send_webhook
from pages.mail import MAX_MAILS_PER_ROUND, send_due_mails

MAX_WEBHOOKS_AT_ONCE = 16
# Between two looks for more while some are on their way.
LOOK_SECONDS = 0.5

logger = logging.getLogger(__name__)


class Courier:
    """Runs an errand in a thread of its own, once at a time in this process."""

    def __init__(self, name: str, errand: Callable[[], object]) -> None:
        self._name = name
        self._errand = errand
        self._lock = threading.Lock()

    def call(self) -> None:
        """Start unless it is under way. Returns at once."""
        if self._lock.acquire(blocking=False):
            threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        try:
            self._errand()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("The courier of %s comes again later: %s", self._name, error)
        except Exception:
            logger.exception("The courier of %s failed.", self._name)
        finally:
            connection.close()
            self._lock.release()


def deliver_mails() -> int:
    """Send all mail that is due; return how many were sent."""
    total = 0
    for sent in watched(_rounds_of_mail()):
        total += sent
    return total


def _rounds_of_mail() -> Iterator[int]:
    while sent := send_due_mails():
        yield sent
        if sent < MAX_MAILS_PER_ROUND:
            return


def deliver_webhooks() -> int:
    """Send all webhooks that are due; return how many were tried. A slow endpoint holds up none but its own."""
    tried = 0
    running: dict[Future[Answer], WebhookDelivery] = {}
    with ThreadPoolExecutor(MAX_WEBHOOKS_AT_ONCE, thread_name_prefix="webhook") as pool:
        while True:
            free = MAX_WEBHOOKS_AT_ONCE - len(running)
            for delivery in claim_deliveries(limit=free) if free else []:
                running[pool.submit(_attempt, delivery)] = delivery
            if not running:
                return tried
            done, _ = wait(running, timeout=LOOK_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                note_answer(running.pop(future), future.result())
                tried += 1


def _attempt(delivery: WebhookDelivery) -> Answer:
    """Sign and send, in a thread that does not use the database."""
    now = datetime.now(UTC)
    endpoint = delivery.endpoint
    try:
        headers = sign(
            delivery.body,
            event_id=delivery.event_id,
            at=now,
            sealed_secrets=live_secrets(endpoint, now=now),
        )
    except LostSecretError as error:
        return Answer(None, str(error), "", 0)
    return send_webhook(endpoint.url, body=delivery.body.encode(), headers=headers)


RECONCILIATION = Courier("reconciliation", reconcile_due)
RECONCILIATION_NOW = Courier("reconciliation at once", partial(reconcile_due, at_once=True))
LEDGER_CHECK = Courier("the ledger check", check_ledger_due)
LEDGER_CHECK_NOW = Courier("the ledger check at once", partial(check_ledger_due, at_once=True))
RERATINGS = Courier("re-ratings", post_decided)
MAIL = Courier("mail", deliver_mails)
WEBHOOKS = Courier("webhooks", deliver_webhooks)
