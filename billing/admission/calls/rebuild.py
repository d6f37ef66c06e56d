"""REBUILD: take a shard over on the Redis process that runs now. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from billing.admission.calls.script_call import Reply, ScriptCall
from billing.admission.redis_keys import PREFIXES, SHARDS
from billing.admission.scripts import read_script

# How it is built: where that is due, in any case, or because somebody else has changed it.
WHERE_DUE, FORCE, MEND = "", "force", "mend"
SCRIPT = read_script("rebuild")


class Built(NamedTuple):
    was_due: bool
    epoch: str


def make_call(prefix: str, *, reopen_ms: int, how: str = WHERE_DUE, also: Sequence[str] = ()) -> ScriptCall:
    """`also` are keys that are looked at too when it is mended."""
    names = SHARDS[PREFIXES.index(prefix)]
    keys = [names.epoch, names.opens, names.index, names.deadlines, names.usage, *also]
    return ScriptCall(prefix, SCRIPT, keys, (prefix, reopen_ms, how))


def read_reply(reply: Reply) -> Built:
    return Built(was_due=reply[0] == b"BUILT", epoch=reply[1].decode())
