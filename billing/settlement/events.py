"""Reads waiting stream entries into events that can be settled, and turns away those that cannot. Pure.

Whatever reading one entry raises is that entry's own fault: it is turned away with the reason and holds up no other.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from billing.shards import shard_of
from billing.usage_event import BILLED, ORPHAN, InvalidEventError, UsageEvent, decode_event
from billing.usage_stream import StreamEntry

REQUEST_ID = re.compile(r"[0-9a-f]{32}")
MAX_ADMITTED_DAY = 100_000  # The year 2243; a later day is a broken clock.
MAX_ADMITTED_AT_MS = MAX_ADMITTED_DAY * 86_400_000
MAX_MS = 2**31 - 1
MAX_ID = 2**63 - 1
MAX_NAME_CHARACTERS = {"model_id": 100, "upstream": 60, "error_code": 60}
MAX_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class AcceptedEvent:
    entry: StreamEntry
    event: UsageEvent

    @property
    def is_billed(self) -> bool:
        return self.event.outcome == BILLED


@dataclass(frozen=True, slots=True)
class RejectedEntry:
    entry: StreamEntry
    reason: str


def read_entries(
    shard: int, entries: Iterable[StreamEntry], *, organization_ids: Collection[int]
) -> tuple[list[AcceptedEvent], list[RejectedEntry]]:
    """Return what can be settled and what cannot. `organization_ids` are those that exist."""
    accepted, rejected = [], []
    for entry in entries:
        try:
            event = decode_event(entry.raw_event)
            # Day and time are stamped at admission, by Redis' clock; the event of an orphan was written before that.
            event.admitted_day = entry.admitted_day
            event.admitted_at_ms = entry.admitted_at_ms or event.admitted_at_ms
            _check_place(shard, entry, event, organization_ids)
            _check_fields(event)
        except Exception as error:
            rejected.append(RejectedEntry(entry, f"{type(error).__name__}: {error}"))
        else:
            accepted.append(AcceptedEvent(entry, event))
    return accepted, rejected


def choose_terminal_states(accepted: Iterable[AcceptedEvent]) -> tuple[list[AcceptedEvent], list[AcceptedEvent]]:
    """Return the billed and the failed events of a batch, each request once, in the order in which they came.

    A request that is told of twice ends as it was told first, but billed wins over failed: what reached a client is
    paid for. An orphan is only the reaper's guess, and loses to a failure that the gateway saw.
    """
    chosen: dict[str, AcceptedEvent] = {}
    for item in accepted:
        earlier = chosen.get(item.event.request_id)
        if earlier is None or _rank(item) > _rank(earlier):
            chosen[item.event.request_id] = item
    billed = [item for item in chosen.values() if item.is_billed]
    return billed, [item for item in chosen.values() if not item.is_billed]


def is_orphan(item: AcceptedEvent) -> bool:
    return item.event.usage_source == ORPHAN


def _rank(item: AcceptedEvent) -> int:
    if not item.is_billed:
        return 1
    return 0 if is_orphan(item) else 2


def _check_place(shard: int, entry: StreamEntry, event: UsageEvent, organization_ids: Collection[int]) -> None:
    if event.organization_id != entry.organization_id:
        raise InvalidEventError(f"organization {event.organization_id} in an entry of {entry.organization_id}")
    if event.organization_id not in organization_ids:
        raise InvalidEventError(f"organization {event.organization_id} does not exist")
    if shard_of(event.organization_id) != shard:
        raise InvalidEventError(f"organization {event.organization_id} does not live in shard {shard}")


def _check_fields(event: UsageEvent) -> None:
    if not isinstance(event.request_id, str) or not REQUEST_ID.fullmatch(event.request_id):
        raise InvalidEventError(f"request_id is {event.request_id!r}")
    for name in ("key_id", "language_model_id", "price_version_id"):
        if not 0 < getattr(event, name) <= MAX_ID:
            raise InvalidEventError(f"{name} is {getattr(event, name)}")
    if type(event.factor_ppm) is not int or not 0 <= event.factor_ppm <= MAX_ID:
        raise InvalidEventError(f"factor_ppm is {event.factor_ppm!r}")
    if not 0 <= event.admitted_at_ms <= MAX_ADMITTED_AT_MS or not 0 <= event.admitted_day <= MAX_ADMITTED_DAY:
        raise InvalidEventError(f"admitted at {event.admitted_at_ms} ms, day {event.admitted_day}")
    if type(event.total_ms) is not int or not 0 <= event.total_ms <= MAX_MS:
        raise InvalidEventError(f"total_ms is {event.total_ms!r}")
    if event.first_byte_ms is not None and (
        type(event.first_byte_ms) is not int or not 0 <= event.first_byte_ms <= MAX_MS
    ):
        raise InvalidEventError(f"first_byte_ms is {event.first_byte_ms!r}")
    if type(event.is_streamed) is not bool:
        raise InvalidEventError(f"is_streamed is {event.is_streamed!r}")
    if not isinstance(event.attempts, list) or len(event.attempts) > MAX_ATTEMPTS:
        raise InvalidEventError("attempts is not a list, or too long")
    for name, characters in MAX_NAME_CHARACTERS.items():
        if len(getattr(event, name)) > characters:
            raise InvalidEventError(f"{name} is longer than {characters} characters")
