"""Celery's triggers. A lost, doubled or late task changes only the lag: what is due is read from Redis and Postgres."""

import logging
import math
import time

from celery import shared_task
from django.conf import settings
from django.db import DatabaseError, InterfaceError

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.feed import publish_pending_changes
from billing.admission.worker import confirm_batch, pulse_shards, read_waiting, standing_epoch
from billing.housekeeping import keep_house
from billing.settlement import settle_batch

SHARDS_PER_TASK = 16
BATCH_EVENTS = 2_000
# A task that has settled for this long makes way; the next pulse goes on where it stopped.
SETTLE_SECONDS = 2.0

logger = logging.getLogger(__name__)

_pulse_ended_at = -math.inf  # In this process, by time.monotonic().


@shared_task(name="billing.pulse")  # type: ignore[untyped-decorator]  # Celery ships no types.
def pulse() -> None:
    """Publish changes to Redis, settle what orphans left, and call for settlement where events wait.

    Triggers that piled up while nobody worked come one after another: one of them does the work of all.
    """
    global _pulse_ended_at
    if time.monotonic() - _pulse_ended_at < settings.PULSE_SECONDS / 2:
        return
    try:
        _pulse()
    finally:
        _pulse_ended_at = time.monotonic()


def _pulse() -> None:
    try:
        publish_pending_changes()
    except (AdmissionUnavailableError, DatabaseError, InterfaceError) as error:
        # A Redis that is full refuses news, but not settlement, which is what frees it.
        logger.warning("Changes are published later: %s", error)
    try:
        waiting = [shard.shard for shard in pulse_shards() if shard.waiting_events]
    except AdmissionUnavailableError as error:
        logger.warning("This pulse is skipped: %s", error)
        return
    for start in range(0, len(waiting), SHARDS_PER_TASK):
        part = waiting[start : start + SHARDS_PER_TASK]
        settle_shards.apply_async((part,), expires=settings.TRIGGER_EXPIRES_SECONDS)


@shared_task(name="billing.housekeeping")  # type: ignore[untyped-decorator]
def housekeeping() -> None:
    """Expire credit lots and make the partitions of the months to come."""
    keep_house()


@shared_task(name="billing.settle_shards")  # type: ignore[untyped-decorator]
def settle_shards(shards: list[int]) -> None:
    """Settle the events that wait in these shards."""
    try:
        settle_waiting(shards, seconds=SETTLE_SECONDS)
    except (AdmissionUnavailableError, DatabaseError, InterfaceError) as error:
        logger.warning("Settlement is put off: %s", error)


def settle_waiting(shards: list[int], *, seconds: float) -> int:
    """Settle batch after batch, shard by turn, until none waits or the time is up. Returns how many events it settled.

    A shard that cannot be settled now holds up no other. Raises AdmissionUnavailableError or DatabaseError where none
    could be; what was committed is confirmed by whoever comes next.
    """
    ends_at = time.monotonic() + seconds
    settled = 0
    busy = list(shards)
    failure: Exception | None = None
    while busy and time.monotonic() < ends_at:
        for shard in list(busy):
            try:
                count, may_have_more = _settle_once(shard)
            except (AdmissionUnavailableError, DatabaseError, InterfaceError) as error:
                logger.warning("The settlement of shard %d is put off: %s", shard, error)
                count, may_have_more, failure = 0, False, error
            settled += count
            if not may_have_more:
                busy.remove(shard)
    if failure is not None and not settled:
        raise failure
    return settled


def _settle_once(shard: int) -> tuple[int, bool]:
    """Settle one batch. Returns how many events that were, and whether more may wait."""
    epoch = standing_epoch(shard)
    entries = read_waiting(shard, count=BATCH_EVENTS)
    batch = settle_batch(shard, entries) if entries else None
    if batch is None:
        return 0, False
    return confirm_batch(batch, epoch=epoch), len(entries) >= BATCH_EVENTS
