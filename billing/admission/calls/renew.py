"""RENEW: renew the leases of holds of one shard and write their new checkpoints. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from billing.admission.calls.script_call import Arg, Reply, ScriptCall
from billing.admission.hold import Hold
from billing.admission.redis_keys import SHARDS
from billing.admission.scripts import read_script

SCRIPT = read_script("renew")


@dataclass(frozen=True, slots=True)
class Renewed:
    """`states` by request id: ok, orphaned or missing. Events of `epoch` up to the bound are settled and confirmed."""

    epoch: str
    bound_is_inclusive: bool
    settled_bound: str
    states: dict[str, str] = field(default_factory=dict)


def make_call(shard: int, holds: Sequence[Hold], *, lease_ms: int) -> ScriptCall:
    names = SHARDS[shard]
    keys = [names.epoch, names.deadlines, names.usage]
    args: list[Arg] = [lease_ms]
    for hold in holds:
        keys += (names.hold(hold.request_id), names.orphaned(hold.request_id))
        args += (hold.request_id, hold.cost_so_far_nanos, hold.checkpoint if hold.checkpoint_is_new else b"")
    return ScriptCall(names.prefix, SCRIPT, keys, args)


def read_reply(reply: Reply, holds: Sequence[Hold]) -> Renewed:
    return Renewed(
        epoch=reply[1].decode(),
        bound_is_inclusive=reply[2] == b"through",
        settled_bound=reply[3].decode(),
        states={hold.request_id: state.decode() for hold, state in zip(holds, reply[4:], strict=True)},
    )
