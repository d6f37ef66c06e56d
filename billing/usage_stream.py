"""What passes between the usage stream in Redis and settlement in Postgres. Pure.

Entries are read with billing.admission.blocking.read_waiting(), settled with
billing.settlement.batch.settle_batches(), and Redis is told with billing.admission.blocking.confirm_batch().
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

ORGANIZATION_SCOPE, KEY_SCOPE = "org", "key"
MAX_MS_DIGITS = 15


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """One waiting usage event. `cost_nanos` and `admitted_day` are what Redis counted it with."""

    stream_id: str
    raw_event: bytes
    organization_id: int
    key_id: int
    cost_nanos: int
    admitted_day: int
    admitted_at_ms: int = 0  # By Redis' clock; 0 where the event itself says it.


@dataclass(frozen=True, slots=True)
class SpendableCredit:
    """An organization's spendable credit as of `version`, read under the lock of the posting.

    `expiries` tells what of it ends when, soonest first: "ms since 1970:nanos ms:nanos".
    """

    organization_id: int
    credit_nanos: int
    version: int
    expiries: str = ""


@dataclass(frozen=True, slots=True)
class PostedDay:
    """What is posted in all for requests that an organization ("org"), key ("key") or spender had admitted on one day.

    A spender's scope and id are the two parts of its name: see billing.budgets.spenders. `organization_id` only says
    which shard is to be told.
    """

    scope: str
    holder_id: int | str
    admitted_day: int
    posted_nanos: int
    organization_id: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SettledBatch:
    """What was committed and may now be forgotten by Redis."""

    shard: int
    stream_ids: Sequence[str]
    balances: Sequence[SpendableCredit]
    posted_days: Sequence[PostedDay]
    inserted: int = 0
    quarantined: int = 0


def read_entry(stream_id: str, fields: Mapping[bytes, bytes]) -> StreamEntry:
    """Return the entry of the stream with these fields."""
    try:
        return StreamEntry(
            stream_id=stream_id,
            raw_event=fields[b"event"],
            organization_id=int(fields[b"organization"]),
            key_id=int(fields[b"key"]),
            cost_nanos=int(fields[b"cost"]),
            admitted_day=int(fields[b"day"]),
            admitted_at_ms=_admitted_at_ms(fields),
        )
    except (KeyError, ValueError):
        # No script of ours wrote this. Whole, and of no organization, it ends in quarantine like any unreadable event.
        raw = b" ".join(name + b"=" + value for name, value in fields.items())
        return StreamEntry(stream_id, raw, organization_id=0, key_id=0, cost_nanos=0, admitted_day=0)


def _admitted_at_ms(fields: Mapping[bytes, bytes]) -> int:
    text = fields.get(b"admitted_at", b"0")
    return int(text) if text.isdigit() and len(text) <= MAX_MS_DIGITS else 0
