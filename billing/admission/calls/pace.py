"""PACE: judge a call of the management API by the rates of its key and of its organization. Pure."""

from dataclasses import dataclass

from billing.admission.calls.script_call import Reply, ScriptCall
from billing.admission.redis_keys import shard_keys_of
from billing.admission.scripts import read_script

SCRIPT = read_script("pace")
KIND = "management"


@dataclass(frozen=True, slots=True)
class TooFast:
    """A call was one too many: how many a minute there may be, and after how long the next one may come."""

    per_minute: int
    retry_us: int


def make_call(*, organization_id: int, key_id: int, key_per_minute: int, organization_per_minute: int) -> ScriptCall:
    names = shard_keys_of(organization_id)
    keys = (names.epoch, names.rate("key", key_id, KIND), names.rate("org", organization_id, KIND))
    return ScriptCall(names.prefix, SCRIPT, keys, (key_per_minute, organization_per_minute))


def read_reply(reply: Reply) -> TooFast | None:
    return TooFast(int(reply[1]), int(reply[2])) if reply[0] == b"REFUSED" else None
