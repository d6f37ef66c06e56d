"""ADMIT FREE: judge a request that costs nothing. Pure."""

from dataclasses import dataclass

from billing.admission.calls.not_ready import NotReady, read_not_ready
from billing.admission.calls.script_call import Reply, ScriptCall
from billing.admission.redis_keys import shard_keys_of
from billing.admission.scripts import read_script

SCRIPT = read_script("admit_free")


@dataclass(frozen=True, slots=True)
class FreeAdmission:
    """The answer to a request that costs nothing: admitted unless there is a `refused_code`."""

    refused_code: str = ""
    reset_us: int = 0


def make_call(*, organization_id: int, key_id: int, key_config_version: int, kind: str, per_minute: int) -> ScriptCall:
    """The key has a rate for each `kind` of free requests."""
    names = shard_keys_of(organization_id)
    keys = (names.epoch, names.org(organization_id), names.key(key_id), names.rate("key", key_id, kind))
    return ScriptCall(names.prefix, SCRIPT, keys, (organization_id, key_config_version, per_minute))


def read_reply(reply: Reply) -> FreeAdmission | NotReady:
    if reply[0] == b"ADMITTED":
        return FreeAdmission()
    if reply[0] == b"REFUSED":
        return FreeAdmission(refused_code=reply[1].decode(), reset_us=int(reply[2]))
    return read_not_ready(reply)
