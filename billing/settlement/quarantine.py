"""Usage events that could not be settled, kept whole until an operator has looked. Each open one counts as a break."""

import hashlib
import logging
from collections.abc import Collection, Sequence

from django.db import transaction

from billing.models import UsageQuarantine
from billing.settlement.events import RejectedEntry

MAX_REASON_CHARACTERS = 2_000
DIGEST_CHARACTERS = 8

logger = logging.getLogger(__name__)


def quarantine_entries(
    shard: int, rejected: Sequence[RejectedEntry], *, organization_ids: Collection[int]
) -> list[UsageQuarantine]:
    """Keep these entries and commit; return the rows that are new. The same entry, or the same event again, adds none.

    `organization_ids` are those that exist: an event of none of them is kept without one.
    """
    added = []
    with transaction.atomic():
        for item in rejected:
            if UsageQuarantine.objects.filter(shard=shard, raw_event=item.entry.raw_event, resolved_at=None).exists():
                continue
            row, is_new = _keep(shard, item, item.entry.stream_id, organization_ids)
            if not is_new and bytes(row.raw_event) != item.entry.raw_event:
                # A Redis that came back empty starts its stream ids again; nothing may be lost to a chance meeting.
                digest = hashlib.sha256(item.entry.raw_event).hexdigest()[:DIGEST_CHARACTERS]
                row, is_new = _keep(shard, item, f"{item.entry.stream_id}#{digest}", organization_ids)
            if is_new:
                added.append(row)
    for row in added:
        logger.error("Usage event %s/%s is in quarantine: %s", shard, row.stream_id, row.reason)
    return added


def _keep(
    shard: int, item: RejectedEntry, stream_id: str, organization_ids: Collection[int]
) -> tuple[UsageQuarantine, bool]:
    organization_id = item.entry.organization_id
    return UsageQuarantine.objects.get_or_create(
        shard=shard,
        stream_id=stream_id,
        defaults={
            "organization_id": organization_id if organization_id in organization_ids else None,
            "raw_event": item.entry.raw_event,
            "reason": item.reason.replace("\x00", "")[:MAX_REASON_CHARACTERS],
        },
    )
