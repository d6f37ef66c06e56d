"""Usage records as they are true: an orphan that was corrected with the counts and the cost of its correction.

For everything that shows requests or adds them up from records. The records themselves never change.
"""

from collections.abc import Iterable, Sequence
from typing import TypeVar
from uuid import UUID

from billing.models import UsageCorrection, UsageRecord
from billing.usage_event import USAGE_COUNTS

T = TypeVar("T")


def show_corrected(rows: Sequence[T]) -> Sequence[T]:
    """Put what corrections say into the orphans among these rows, in memory only, and return the same rows."""
    orphans = {
        row.request_id: row
        for row in rows
        if isinstance(row, UsageRecord) and row.usage_source == UsageRecord.Source.ORPHAN
    }
    for correction in find_corrections(orphans):
        record = orphans[correction.request_id]
        for name in USAGE_COUNTS:
            setattr(record, name, getattr(correction, name))
        record.cost_nanos = correction.cost_after_nanos
        record.upstream_cost_nanos = correction.upstream_cost_after_nanos
        record.attempts = correction.attempts
        if correction.outcome == UsageCorrection.Outcome.BILLED:
            record.usage_source = correction.usage_source
    return rows


def find_corrections(request_ids: Iterable[UUID]) -> list[UsageCorrection]:
    ids = list(request_ids)
    return list(UsageCorrection.objects.filter(request_id__in=ids)) if ids else []
