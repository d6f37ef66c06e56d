"""How a quarantined event leaves quarantine: settled after all, or given up for a reason. Both are recorded, once."""

import time

from django.db import transaction
from django.utils import timezone

from accounts.models import ApiKey, Organization
from accounts.outbox import record_key_change, record_organization_change
from billing.models import FailedRequest, UsageQuarantine, UsageRecord
from billing.settlement.batch import EntryRefusedError, settle_entry
from billing.usage_event import InvalidEventError, decode_event
from billing.usage_stream import StreamEntry

MS_PER_DAY = 86_400_000
MAX_TRIES = 50  # Workers settle the same shard in turns of milliseconds.
SECONDS_BETWEEN_TRIES = 0.1

Resolution = UsageQuarantine.Resolution


class ResolutionError(ValueError):
    """The event stays in quarantine; the text says why."""


class AlreadyResolvedError(ResolutionError):
    """Somebody has dealt with the event before; who, when and how stay as they are."""


def settle_quarantined(row: UsageQuarantine, *, actor: str, reason: str) -> UsageQuarantine:
    """Settle the event as if it came now, and note who did so. What was settled before is not charged again.

    Raises ResolutionError when the event is refused again, or its shard stays busy; then nothing was written.
    """
    entry = _entry_of(row)
    for _ in range(MAX_TRIES):
        with transaction.atomic():
            resolved = _resolve(row, Resolution.SETTLED, actor, reason)
            try:
                batch = settle_entry(row.shard, entry)
            except EntryRefusedError as error:
                raise ResolutionError(f"The event is still refused: {error}") from error
            if batch is not None:
                _require_terminal_state(entry)
                _tell_redis(entry)
                return resolved
            transaction.set_rollback(True)
        time.sleep(SECONDS_BETWEEN_TRIES)
    raise ResolutionError(f"Workers are settling shard {row.shard} without a pause. Try again later.")


def discard_quarantined(row: UsageQuarantine, *, actor: str, reason: str) -> UsageQuarantine:
    """Give the event up: it is kept, and nobody is ever charged for it. Raises ResolutionError."""
    with transaction.atomic():
        return _resolve(row, Resolution.DISCARDED, actor, reason)


def _resolve(row: UsageQuarantine, resolution: Resolution, actor: str, reason: str) -> UsageQuarantine:
    if not actor.strip() or not reason.strip():
        raise ResolutionError("A resolution names a person and a reason.")
    changed = UsageQuarantine.objects.filter(pk=row.pk, resolved_at=None).update(
        resolved_at=timezone.now(), resolved_by=actor, resolution=resolution, resolution_reason=reason.strip()
    )
    resolved = UsageQuarantine.objects.get(pk=row.pk)
    if not changed:
        raise AlreadyResolvedError(
            f"Event {row.pk} was resolved before, by {resolved.resolved_by or 'somebody'}"
            f" at {resolved.resolved_at:%Y-%m-%d %H:%M} UTC."
        )
    return resolved


def _entry_of(row: UsageQuarantine) -> StreamEntry:
    """Return the stream entry that the event came in. Raises ResolutionError when the event cannot be read."""
    raw = bytes(row.raw_event)
    try:
        event = decode_event(raw)
    except InvalidEventError as error:
        raise ResolutionError(f"The event is still refused: {error}") from error
    return StreamEntry(
        stream_id=row.stream_id,
        raw_event=raw,
        # An organization that did not exist then may do so now.
        organization_id=row.organization_id or event.organization_id,
        key_id=event.key_id,
        cost_nanos=event.cost_nanos,
        # The day that Redis stamped is not kept in quarantine; it lies within a lease of this one.
        admitted_day=event.admitted_day or event.admitted_at_ms // MS_PER_DAY,
    )


def _require_terminal_state(entry: StreamEntry) -> None:
    request_id = decode_event(entry.raw_event).request_id
    if not any(table.objects.filter(pk=request_id).exists() for table in (UsageRecord, FailedRequest)):
        raise ResolutionError("The event was settled, but left no record.")


def _tell_redis(entry: StreamEntry) -> None:
    record_organization_change(Organization.objects.get(pk=entry.organization_id))
    key = ApiKey.objects.filter(pk=entry.key_id, organization_id=entry.organization_id).first()
    if key is not None:
        record_key_change(key)
