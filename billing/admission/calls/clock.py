"""CLOCK: the time by Redis, by which everything is admitted. Pure."""

from billing.admission.calls.script_call import Reply, ScriptCall
from billing.admission.redis_keys import CLOCK
from billing.admission.scripts import read_script

SCRIPT = read_script("clock")


def make_call() -> ScriptCall:
    return ScriptCall(CLOCK, SCRIPT, [CLOCK], [])


def read_reply(reply: Reply) -> int:
    """Return milliseconds since 1970."""
    return int(reply[0])
