"""Celery's triggers. A lost, doubled or late task changes only the lag: what is due is read from Redis and Postgres."""

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError, InterfaceError
from django.utils import timezone

from billing.admission.blocking import confirm_batch, read_waiting, reap_shards, standing_epoch
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.outbox import publish_pending_changes
from billing.alerts.book import forget_old_alerts
from billing.alerts.evaluation import evaluate_catalog, evaluate_spending
from billing.alerts.notices import queue_notices
from billing.documents.closing import close_everywhere, issue_receipts, last_month_over
from billing.mail_outbox import forget_old_mails
from billing.maintenance import do_each_part, run_maintenance
from billing.payments.automatic import run_automatic_top_ups
from billing.payments.provider import PaymentProviderError
from billing.payments.providers import current_provider
from billing.payments.pull import pull_orders, pull_payments
from billing.payments.recurring import give_monthly_credit
from billing.privacy.deletion import erase_due_organizations
from billing.privacy.retention import erase_due_details
from billing.settlement.batch import settle_batches
from billing.shards import SHARD_COUNT
from billing.usage_stream import StreamEntry
from billing.watching import watched
from billing.webhooks.deliveries import forget_old_deliveries
from operations import courier
from operations.jobs import forget_old_runs, job
from operations.metrics import BATCHES, PUT_OFF, SETTLED
from operations.provider_accounts import ProviderSilentError, draft_drifts, watch_balances
from operations.traffic import count_traffic, recount_day

SHARDS_PER_TASK = 16
BATCH_EVENTS = 2_000
LISTED_SPAN = timedelta(days=2)
# A task that has settled for this long makes way; the next run goes on where it stopped.
SETTLE_SECONDS = 2.0
SETTLEMENT_FAULTS = (AdmissionUnavailableError, DatabaseError, InterfaceError)

logger = logging.getLogger(__name__)


class NotAllDoneError(Exception):
    """A part of a job could not be done; the text says which. The rest was done."""


_ended_at = -math.inf  # In this process, by time.monotonic().


@shared_task(name="billing.pulse")  # type: ignore[untyped-decorator]  # Celery ships no types.
def run_due_work() -> None:
    """Publish changes to Redis, close what orphans left, and call for settlement where events wait.

    Triggers that piled up while nobody worked come one after another: one of them does the work of all.
    """
    global _ended_at
    if time.monotonic() - _ended_at < settings.PULSE_SECONDS / 2:
        return
    try:
        with job("due_work"):
            waiting = _publish_and_reap()
            for start in range(0, len(waiting), SHARDS_PER_TASK):
                part = waiting[start : start + SHARDS_PER_TASK]
                settle_shards.apply_async((part,), expires=settings.TRIGGER_EXPIRES_SECONDS)
    finally:
        _ended_at = time.monotonic()


def do_due_work() -> None:
    """Do the same here and now, settlement too: also where no worker and no broker is there."""
    with job("due_work"):
        waiting = _publish_and_reap()
        if waiting:
            settle_waiting(waiting, seconds=math.inf)


def _publish_and_reap() -> list[int]:
    """Publish changes, close what orphans left, and return the shards in which events wait."""
    try:
        publish_pending_changes()
    except (AdmissionUnavailableError, DatabaseError, InterfaceError) as error:
        # A Redis that is full refuses changes, but not settlement, which is what frees it.
        logger.warning("Changes are published later: %s", error)
    try:
        return [shard.shard for shard in watched(reap_shards(), SHARD_COUNT) if shard.waiting_events]
    except AdmissionUnavailableError as error:
        logger.warning("This run is skipped: %s", error)
        return []


@shared_task(name="billing.housekeeping")  # type: ignore[untyped-decorator]
def maintain() -> None:
    """Expire credit lots and make the partitions of the months to come."""
    with _put_off("Maintenance"), job("maintenance"):
        failed = run_maintenance()
        forget_old_runs(now=datetime.now(UTC))
        if failed:
            raise NotAllDoneError(f"{', '.join(failed)} failed; the log says why.")


@shared_task(name="billing.alerts")  # type: ignore[untyped-decorator]
def look_for_alerts() -> None:
    """Raise and clear what depends on balances, budgets and the clock."""
    with _put_off("Alerts"), job("alerts"):
        evaluate_spending()


@shared_task(name="billing.catalog_alerts")  # type: ignore[untyped-decorator]
def look_for_catalog_alerts() -> None:
    """Raise and clear what depends on prices and models, and forget what was told long ago."""
    with _put_off("Alerts of the catalog"), job("catalog_alerts"):
        evaluate_catalog()
        forget_old_deliveries()
        forget_old_mails()
        forget_old_alerts()


@shared_task(name="billing.courier")  # type: ignore[untyped-decorator]
def send_what_waits() -> None:
    """Tell of alerts, and see to it that mail and webhooks are on their way. Returns before they are."""
    with _put_off("Notices"), job("notices"):
        queue_notices()
    courier.MAIL.call()
    courier.WEBHOOKS.call()


@shared_task(name="billing.reconcile")  # type: ignore[untyped-decorator]
def reconcile_when_due(at_once: bool = False) -> None:
    """See to it that the books of the last days are compared, once a day or at once. Returns before they are."""
    (courier.RECONCILIATION_NOW if at_once else courier.RECONCILIATION).call()


@shared_task(name="billing.ledger_check")  # type: ignore[untyped-decorator]
def check_ledger_when_due(at_once: bool = False) -> None:
    """See to it that the books are checked against themselves, once a day or at once. Returns before they are."""
    (courier.LEDGER_CHECK_NOW if at_once else courier.LEDGER_CHECK).call()


@shared_task(name="billing.reratings")  # type: ignore[untyped-decorator]
def post_reratings() -> None:
    """See to it that decided re-ratings are posted. Returns before they are."""
    courier.RERATINGS.call()


@shared_task(name="billing.traffic")  # type: ignore[untyped-decorator]
def count_what_happened() -> None:
    """Count the minutes and hours that the dashboard shows."""
    with _put_off("Counts of traffic"), job("traffic"):
        count_traffic(now=datetime.now(UTC))


@shared_task(name="billing.traffic_check")  # type: ignore[untyped-decorator]
def check_traffic() -> None:
    """Count yesterday's hours again: usage of an orphan, or of a gateway that was away, may have come late."""
    with _put_off("The check of traffic"), job("traffic_check"):
        for line in recount_day(yesterday()):
            logger.info("Traffic: %s", line)


@shared_task(name="billing.retention")  # type: ignore[untyped-decorator]
def erase_old_details() -> None:
    """Erase the details of requests that organizations want kept no longer, and organizations that asked for it."""
    with _put_off("Retention"), job("retention"):
        erase_due_details(now=datetime.now(UTC))
        erase_due_organizations(now=datetime.now(UTC))


@shared_task(name="billing.provider_balances")  # type: ignore[untyped-decorator]
def watch_provider_balances() -> None:
    """Ask providers what is left on our accounts."""
    with _put_off("Balances at providers"), job("provider_balances"):
        watch_balances(now=timezone.now())


@shared_task(name="billing.price_drift")  # type: ignore[untyped-decorator]
def draft_price_drifts() -> None:
    """Draft what providers' price lists say otherwise than ours."""
    with _put_off("Price lists"), job("price_drift"):
        draft_drifts(now=timezone.now())


def yesterday() -> date:
    return datetime.now(UTC).date() - timedelta(days=1)


@contextmanager
def _put_off(what: str) -> Iterator[None]:
    """Leave the rest to the next trigger, where a store or a provider is away or not all could be done."""
    try:
        yield
    except (DatabaseError, InterfaceError, NotAllDoneError, PaymentProviderError, ProviderSilentError) as error:
        logger.warning("%s: the rest is put off: %s", what, error)


@shared_task(name="billing.documents")  # type: ignore[untyped-decorator]
def write_documents() -> None:
    """Write the receipts of new payments, and the documents of the month that is over for whoever has none."""
    with _put_off("Documents"), job("documents"):
        issue_receipts()
        failed = 0
        for closing in close_everywhere(last_month_over()):
            failed += closing.error is not None
            if closing.documents:
                logger.info("%s: %s", closing.organization.slug, ", ".join(map(str, closing.documents)))
        if failed:
            raise NotAllDoneError(f"{failed} organizations could not be closed; manage.py close_month says why.")


@shared_task(name="billing.payments")  # type: ignore[untyped-decorator]
def look_after_payments() -> None:
    """Ask providers about payments, top up automatically, and give what is due each month: each for itself."""
    with _put_off("Payments"), job("payments"):
        failed = do_each_part(
            {
                "the credit of the month": give_monthly_credit,
                "automatic top-ups": run_automatic_top_ups,
                "asking about orders": pull_orders,
            }
        )
        if failed:
            raise NotAllDoneError(f"{', '.join(failed)} failed; the log says why.")


@shared_task(name="billing.payment_lists")  # type: ignore[untyped-decorator]
def go_through_payment_lists() -> None:
    """Compare with the provider's own list of the last two days: what was paid and not credited is credited."""
    provider = current_provider()
    if provider is None:
        return
    with _put_off("The list of payments"), job("payment_lists"):
        now = timezone.now()
        pull_payments(provider.name, now - LISTED_SPAN, now)


@shared_task(name="billing.settle_shards")  # type: ignore[untyped-decorator]
def settle_shards(shards: list[int]) -> None:
    """Settle the events that wait in these shards."""
    try:
        settle_waiting(shards, seconds=SETTLE_SECONDS)
    except SETTLEMENT_FAULTS as error:
        logger.warning("Settlement is put off: %s", error)


class _Waiting(NamedTuple):
    """What waits in a shard, and the epoch that stood before it was read."""

    epoch: str
    entries: list[StreamEntry]


def settle_waiting(shards: list[int], *, seconds: float) -> int:
    """Settle batch after batch of these shards until none waits or the time is up. Returns how many events it settled.

    A shard that cannot be settled now holds up no other. Raises AdmissionUnavailableError or DatabaseError where none
    could be; what was committed is confirmed by whoever comes next.
    """
    ends_at = time.monotonic() + seconds
    settled, busy = 0, list(shards)
    failures: list[Exception] = []
    while busy and time.monotonic() < ends_at:
        full = []
        for waiting in watched(_read_together(busy, failures)):
            counts = _settle_apart_where_due(waiting, failures)
            settled += sum(counts.values())
            full += [shard for shard in counts if len(waiting[shard].entries) >= BATCH_EVENTS]
        busy = full
    if failures and not settled:
        raise failures[-1]
    return settled


def _read_together(shards: list[int], failures: list[Exception]) -> Iterator[dict[int, _Waiting]]:
    """Yield what waits in these shards: as many together as make one batch."""
    together: dict[int, _Waiting] = {}
    count = 0
    for shard in shards:
        try:
            waiting = _Waiting(standing_epoch(shard), read_waiting(shard, count=BATCH_EVENTS))
        except AdmissionUnavailableError as error:
            _put_off_shard(shard, error, failures)
            continue
        if together and count + len(waiting.entries) > BATCH_EVENTS:
            yield together
            together, count = {}, 0
        if waiting.entries:
            together[shard] = waiting
            count += len(waiting.entries)
    if together:
        yield together


def _settle_apart_where_due(waiting: Mapping[int, _Waiting], failures: list[Exception]) -> dict[int, int]:
    """Settle these shards together or, where that fails, each by itself. Returns how many events of each it settled."""
    if len(waiting) > 1:
        try:
            return _settle_together(waiting)
        except SETTLEMENT_FAULTS:
            logger.warning("%d shards could not be settled together; each is tried by itself.", len(waiting))
    counts: dict[int, int] = {}
    for shard, each in waiting.items():
        try:
            counts |= _settle_together({shard: each})
        except SETTLEMENT_FAULTS as error:
            _put_off_shard(shard, error, failures)
    return counts


def _settle_together(waiting: Mapping[int, _Waiting]) -> dict[int, int]:
    """Return how many events of each shard were settled; shards that another worker settles are left out."""
    with BATCHES.time():
        batches = settle_batches({shard: each.entries for shard, each in waiting.items()})
    counts = {}
    for shard, batch in batches.items():
        counts[shard] = confirm_batch(batch, epoch=waiting[shard].epoch)
        SETTLED.inc(counts[shard])
    return counts


def _put_off_shard(shard: int, error: Exception, failures: list[Exception]) -> None:
    logger.warning("The settlement of shard %d is put off: %s", shard, error)
    PUT_OFF.inc()
    failures.append(error)
