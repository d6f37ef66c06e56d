"""Refused requests: written by gateways in batches, read by whoever asks why, and forgotten after a while."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from billing.bulk_rows import fetch_all, insert_rows
from billing.models import RefusedRequest
from billing.usage_event import MAX_END_USER_CHARS, MAX_SESSION_CHARS, MAX_TAG_CHARS

DAYS_KEPT = 30
MAX_FORGOTTEN_AT_ONCE = 20_000
MAX_MESSAGE_CHARS = 1000
MAX_MODEL_CHARS = 100
COLUMNS = {
    "request_id": "uuid",
    "organization_id": "bigint",
    "key_id": "bigint",
    "endpoint": "text",
    "model_id": "text",
    "status": "smallint",
    "error_code": "text",
    "message": "text",
    "repeats": "integer",
    "end_user": "text",
    "tag": "text",
    "session": "text",
    "refused_at": "timestamptz",
}


@dataclass(slots=True)
class Refusal:
    """One refused request as a gateway notes it. `repeats` may grow until it is written."""

    request_id: str
    organization_id: int
    key_id: int
    endpoint: str
    model_id: str
    status: int
    error_code: str
    message: str
    refused_at: datetime
    end_user: str = ""
    tag: str = ""
    session: str = ""
    repeats: int = 0


def write_refusals(refusals: Sequence[Refusal]) -> None:
    """Write refusals, once each by their request id."""
    rows = [
        (
            UUID(item.request_id),
            item.organization_id,
            item.key_id,
            item.endpoint,
            _storable(item.model_id, MAX_MODEL_CHARS),
            item.status,
            item.error_code,
            _storable(item.message, MAX_MESSAGE_CHARS),
            item.repeats,
            _storable(item.end_user, MAX_END_USER_CHARS),
            _storable(item.tag, MAX_TAG_CHARS),
            _storable(item.session, MAX_SESSION_CHARS),
            item.refused_at,
        )
        # In this order a trigger counts them by day: two gateways that write at once wait for each other in turn.
        for item in sorted(refusals, key=lambda item: (item.organization_id, item.refused_at.date(), item.error_code))
    ]
    insert_rows(
        "billing_refusedrequest",
        COLUMNS,
        rows,
        tail="ON CONFLICT (request_id) DO UPDATE SET repeats = excluded.repeats"
        " WHERE excluded.repeats > billing_refusedrequest.repeats",
    )


def forget_old_refusals(*, now: datetime) -> int:
    """Delete some of the refusals that are older than DAYS_KEPT days, and return how many those were."""
    rows = fetch_all(
        """WITH old AS (SELECT request_id FROM billing_refusedrequest WHERE refused_at < %s LIMIT %s),
            gone AS (DELETE FROM billing_refusedrequest USING old
                WHERE billing_refusedrequest.request_id = old.request_id RETURNING 1)
            SELECT count(*) FROM gone""",
        [now - timedelta(days=DAYS_KEPT), MAX_FORGOTTEN_AT_ONCE],
    )
    return int(rows[0][0])


def find_refusal(organization_id: int, request_id: UUID) -> RefusedRequest | None:
    return RefusedRequest.objects.filter(organization_id=organization_id, request_id=request_id).first()


def _storable(text: str, max_chars: int) -> str:
    """Return the text without what Postgres cannot keep: zero bytes, halves of characters, more than a column takes.

    Rows are written together, of many organizations: one that Postgres refuses would keep all others out.
    """
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:max_chars]
