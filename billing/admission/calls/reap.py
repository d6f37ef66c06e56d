"""REAP: close expired holds of one shard from their checkpoints. Pure."""

from dataclasses import dataclass

from billing.admission.calls.close import TOMBSTONE_SECONDS
from billing.admission.calls.script_call import Reply, ScriptCall
from billing.admission.redis_keys import SHARDS
from billing.admission.scripts import read_script

MAX_REAPED_PER_RUN = 500
SCRIPT = read_script("reap")


@dataclass(frozen=True, slots=True)
class ShardStatus:
    shard: int
    waiting_events: int
    reaped_holds: int
    holds_in_flight: int


def make_call(shard: int, *, gap_ms: int, lease_ms: int) -> ScriptCall:
    names = SHARDS[shard]
    keys = [names.epoch, names.deadlines, names.usage, names.reaper]
    args = (names.prefix, MAX_REAPED_PER_RUN, gap_ms, lease_ms, TOMBSTONE_SECONDS)
    return ScriptCall(names.prefix, SCRIPT, keys, args)


def read_reply(reply: Reply, shard: int) -> ShardStatus:
    return ShardStatus(shard, *(int(word) for word in reply[1:4]))
