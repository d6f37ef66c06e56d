"""What passes between the usage stream in Redis and settlement in Postgres. Pure.

Entries are read with billing.admission.worker.read_waiting(), settled with billing.settlement.settle_batch(), and
Redis is told with billing.admission.worker.confirm_batch().
"""

from collections.abc import Sequence
from dataclasses import dataclass

ORGANIZATION_SCOPE, KEY_SCOPE = "org", "key"


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
class CreditFigure:
    """An organization's spendable credit as of `version`, read under the lock of the posting.

    `expiries` tells what of it ends when, soonest first: "ms since 1970:nanos ms:nanos".
    """

    organization_id: int
    credit_nanos: int
    version: int
    expiries: str = ""


@dataclass(frozen=True, slots=True)
class PostedDay:
    """What is posted in all for requests that an organization ("org") or key ("key") had admitted on one UTC day."""

    scope: str
    holder_id: int
    admitted_day: int
    posted_nanos: int


@dataclass(frozen=True, slots=True)
class SettledBatch:
    """What was committed and may now be forgotten by Redis."""

    shard: int
    stream_ids: Sequence[str]
    balances: Sequence[CreditFigure]
    posted_days: Sequence[PostedDay]
    inserted: int = 0
    quarantined: int = 0
