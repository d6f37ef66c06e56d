"""Reads what admission keeps in Redis, all of it, to compare it with Postgres. Only looks."""

import re
from dataclasses import dataclass, field
from typing import Any, cast

import redis

from billing.admission import scripts
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.names import SHARDS
from billing.admission.worker import redis_client, run_script
from billing.shards import SHARD_COUNT

NO_ORGANIZATION = 0
HOLDERS_PER_ROUND = 1_000
HOLDER = re.compile(rb"(org|key):[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class ShardState:
    """`holders` are the organizations ("org") and keys ("key") that the shard knows, by their ids, with their fields.

    `is_built` is False where the shard's state is of another Redis process: it is built anew before it is used.
    """

    shard: int
    is_built: bool
    waiting_events: int = 0
    holds_in_flight: int = 0
    holders: dict[tuple[str, int], dict[str, str]] = field(default_factory=dict)

    @property
    def is_quiet(self) -> bool:
        return not self.waiting_events and not self.holds_in_flight


def read_shards() -> list[ShardState]:
    """Return the state of every shard. Raises AdmissionUnavailableError."""
    try:
        return [_read_shard(shard) for shard in range(SHARD_COUNT)]
    except (redis.RedisError, OSError) as error:
        raise AdmissionUnavailableError(f"Redis cannot be used: {error}") from error


def _read_shard(shard: int) -> ShardState:
    names = SHARDS[shard]
    reply = run_script(scripts.FIGURES, [names.epoch, names.org(NO_ORGANIZATION), names.opens], [])
    if reply[0] == b"REBUILD":
        return ShardState(shard, is_built=False)
    client = redis_client()
    pipeline: Any = client.pipeline(transaction=False)
    waiting, holds, members = pipeline.xlen(names.usage).zcard(names.deadlines).smembers(names.index).execute()
    return ShardState(
        shard,
        is_built=True,
        waiting_events=int(waiting),
        holds_in_flight=int(holds),
        holders=_read_holders(names.prefix, [m for m in sorted(cast(set[bytes], members)) if HOLDER.fullmatch(m)]),
    )


def _read_holders(prefix: str, members: list[bytes]) -> dict[tuple[str, int], dict[str, str]]:
    holders: dict[tuple[str, int], dict[str, str]] = {}
    for start in range(0, len(members), HOLDERS_PER_ROUND):
        part = [member.decode() for member in members[start : start + HOLDERS_PER_ROUND]]
        pipeline: Any = redis_client().pipeline(transaction=False)
        for member in part:
            pipeline.hgetall(prefix + member)
        for member, fields in zip(part, pipeline.execute(), strict=True):
            scope, _, holder_id = member.partition(":")
            holders[scope, int(holder_id)] = {name.decode(): value.decode() for name, value in fields.items()}
    return holders
