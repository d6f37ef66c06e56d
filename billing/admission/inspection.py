"""Reads what admission keeps in Redis, all of it, to compare it with Postgres. Only looks."""

import re
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from billing.admission.calls import state
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis.blocking_client import redis_client, run_script
from billing.admission.redis_keys import SHARDS, ShardKeys
from billing.shards import SHARD_COUNT

NO_ORGANIZATION = 0
HOLDERS_PER_ROUND = 1_000
HOLDER = re.compile(rb"(org|key):[0-9]{1,18}")
SPENDER = re.compile(r"(member|user):[0-9]{1,18}-[0-9a-f]{1,32}")


@dataclass(frozen=True, slots=True)
class ShardState:
    """`holders` are the organizations ("org") and keys ("key") that the shard knows, by their ids, with their fields.

    `is_built` is False where the shard's state is of another Redis process: it is rebuilt before it is used. Then
    `opens_in_ms` says how long admission still waits for gateways to put back what was lost. `vanished_events` were
    deleted by somebody else in the last seven days, before settlement had them. `spenders` are the members and end
    users that it knows, by their names.
    """

    shard: int
    is_built: bool
    opens_in_ms: int = 0
    waiting_events: int = 0
    holds_in_flight: int = 0
    vanished_events: int = 0
    holders: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)
    spenders: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def is_quiet(self) -> bool:
        return not self.waiting_events and not self.holds_in_flight

    @property
    def is_open(self) -> bool:
        """True when requests are admitted."""
        return self.is_built and not self.opens_in_ms


def read_shards(*, with_holders: bool = True) -> list[ShardState]:
    """Return the state of every shard, with all that it knows or only its counts. Raises AdmissionUnavailableError."""
    try:
        return [_read_shard(shard, with_holders=with_holders) for shard in range(SHARD_COUNT)]
    except (redis.RedisError, OSError) as error:
        raise AdmissionUnavailableError(f"Redis cannot be used: {error}") from error


def _read_shard(shard: int, *, with_holders: bool) -> ShardState:
    names = SHARDS[shard]
    reply = run_script(state.SCRIPT, [names.epoch, names.org(NO_ORGANIZATION), names.opens], [])
    if reply[0] == b"REBUILD":
        return ShardState(shard, is_built=False)
    pipeline: Any = redis_client().pipeline(transaction=False)
    waiting, holds, vanished = pipeline.xlen(names.usage).zcard(names.deadlines).get(names.vanished).execute()
    found = cast(set[bytes], redis_client().smembers(names.index)) if with_holders else set()
    members = [member.decode() for member in sorted(found) if HOLDER.fullmatch(member)]
    return ShardState(
        shard,
        is_built=True,
        opens_in_ms=int(reply[1]),
        waiting_events=int(waiting),
        holds_in_flight=int(holds),
        vanished_events=int(vanished) if vanished and vanished.isdigit() else 0,
        holders=_read_holders(names.prefix, members),
        spenders=_read_hashes(names.prefix, _read_spenders(names, members)),
    )


def _read_holders(prefix: str, members: list[str]) -> dict[tuple[str, int], dict[str, str]]:
    holders: dict[tuple[str, int], dict[str, str]] = {}
    for member, fields in _read_hashes(prefix, members).items():
        scope, _, holder_id = member.partition(":")
        holders[scope, int(holder_id)] = fields
    return holders


def _read_spenders(names: ShardKeys, members: list[str]) -> list[str]:
    """Return the names of the members and end users that these organizations have in Redis."""
    pipeline: Any = redis_client().pipeline(transaction=False)
    for member in members:
        if member.startswith("org:"):
            pipeline.zrange(names.spenders(int(member.partition(":")[2])), 0, -1)
    found = [name.decode() for listed in pipeline.execute() for name in listed]
    return [name for name in found if SPENDER.fullmatch(name)]


def _read_hashes(prefix: str, members: list[str]) -> dict[str, dict[str, str]]:
    hashes: dict[str, dict[str, str]] = {}
    for start in range(0, len(members), HOLDERS_PER_ROUND):
        part = members[start : start + HOLDERS_PER_ROUND]
        pipeline: Any = redis_client().pipeline(transaction=False)
        for member in part:
            pipeline.hgetall(prefix + member)
        for member, fields in zip(part, pipeline.execute(), strict=True):
            hashes[member] = {name.decode(): value.decode() for name, value in fields.items()}
    return hashes
