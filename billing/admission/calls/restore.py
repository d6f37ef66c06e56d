"""RESTORE: put back a hold that Redis has lost. Pure."""

from billing.admission.calls.script_call import Reply, ScriptCall
from billing.admission.errors import InvalidAmountError
from billing.admission.hold import Hold
from billing.admission.redis_keys import shard_keys_of
from billing.admission.scripts import read_script

SCRIPT = read_script("restore")


def make_call(hold: Hold, *, lease_ms: int) -> ScriptCall:
    names = shard_keys_of(hold.organization_id)
    keys = (
        names.epoch,
        names.org(hold.organization_id),
        names.key(hold.key_id),
        names.hold(hold.request_id),
        names.deadlines,
        names.orphaned(hold.request_id),
        names.index,
    )
    args = (
        hold.request_id,
        hold.organization_id,
        hold.key_id,
        hold.amount_nanos,
        lease_ms,
        hold.input_tokens,
        hold.output_tokens,
        hold.day,
        hold.cost_so_far_nanos,
        hold.checkpoint or hold.orphan_event,
        hold.admitted_at_ms,
        hold.spenders,
    )
    return ScriptCall(names.prefix, SCRIPT, keys, args)


def read_reply(reply: Reply, hold: Hold) -> bool:
    """Return whether it is held again: not when it was closed as an orphan. Raises InvalidAmountError."""
    if reply[0] == b"INVALID":
        raise InvalidAmountError(f"Request {hold.request_id} would hold {hold.amount_nanos} nanos.")
    return bool(reply[0] == b"HELD")
