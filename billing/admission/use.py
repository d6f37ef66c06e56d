"""What Redis knows of limits right now: what is held and unsettled, how far rates are taken. Only looks, for people."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from billing.admission.redis.blocking_client import redis_client, translated_errors
from billing.admission.redis_keys import ShardKeys, shard_keys_of
from billing.budgets.spenders import Spender

RATE_KINDS = ("requests", "input", "output")
MS_PER_MINUTE = 60_000
EXTRA_MS = 1_000  # By which a rate's key outlives what it says.
POSTED, WAITING = "posted", ("held", "unsettled")


@dataclass(frozen=True, slots=True)
class HolderUse:
    """Nano-dollars by day of admission. `taken_ppm` is by kind of rate the part of a minute's that is used."""

    posted: Mapping[int, int] = field(default_factory=dict)
    waiting: Mapping[int, int] = field(default_factory=dict)  # Held, or unsettled.
    open_requests: int = 0
    taken_ppm: Mapping[str, int] = field(default_factory=dict)


def read_use(
    organization_id: int,
    *,
    key_ids: Iterable[int] = (),
    rated_key_ids: Collection[int] = (),
    spenders: Iterable[Spender] = (),
) -> dict[str, HolderUse]:
    """Return the use of an organization ("org"), its keys ("key:<id>") and spenders (their names).

    How far rates are taken is asked of the organization and of `rated_key_ids` alone. Who is not known to Redis uses
    nothing. Raises AdmissionUnavailableError.
    """
    names = shard_keys_of(organization_id)
    rated = set(rated_key_ids)
    holders = {"org": (names.org(organization_id), _rates(names, "org", organization_id))}
    for key_id in key_ids:
        holders[f"key:{key_id}"] = (names.key(key_id), _rates(names, "key", key_id) if key_id in rated else [])
    by_name = [spender.name for spender in spenders]
    with translated_errors():
        pipeline: Any = redis_client().pipeline(transaction=False)
        for key, rates in holders.values():
            pipeline.hgetall(key)
            for rate in rates:
                pipeline.pttl(rate)
        for name in by_name:
            pipeline.hgetall(names.prefix + name)
        replies = iter(pipeline.execute())
    found = {}
    for label, (_, rates) in holders.items():
        fields = next(replies)
        found[label] = _read(fields, dict(zip(RATE_KINDS, [next(replies) for _ in rates], strict=False)))
    return found | {name: _read(next(replies), {}) for name in by_name}


def _rates(names: ShardKeys, scope: str, holder_id: int) -> list[str]:
    return [names.rate(scope, holder_id, kind) for kind in RATE_KINDS]


def _read(fields: Mapping[bytes, bytes], ttls: Mapping[str, int]) -> HolderUse:
    posted: dict[int, int] = {}
    waiting: dict[int, int] = defaultdict(int)
    for name, value in fields.items():
        what, _, day = name.decode().partition(":")
        if day.isdigit() and what == POSTED:
            posted[int(day)] = int(value)
        elif day.isdigit() and what in WAITING:
            waiting[int(day)] += int(value)
    # A rate's key lives for as long as it is ahead of the clock: see take_rate() in the scripts.
    taken = {
        kind: min(max(0, ttl - EXTRA_MS), MS_PER_MINUTE) * 1_000_000 // MS_PER_MINUTE for kind, ttl in ttls.items()
    }
    return HolderUse(posted, dict(waiting), int(fields.get(b"open", 0)), taken)
