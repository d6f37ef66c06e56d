"""CLOSE: drop a hold, count its cost as unsettled, append its event to the stream. Pure."""

from typing import NamedTuple

from billing.admission.calls.script_call import Reply, ScriptCall
from billing.admission.errors import InvalidAmountError
from billing.admission.hold import Hold
from billing.admission.redis_keys import holder_keys_of, shard_keys_of
from billing.admission.scripts import read_script

TOMBSTONE_SECONDS = 86_400  # How long Redis remembers that a hold was closed as an orphan.
SCRIPT = read_script("close")


class Closed(NamedTuple):
    stream_id: str
    epoch: str


def make_call(
    hold: Hold, *, cost_nanos: int, event: bytes, input_tokens: int, output_tokens: int, release: bool = False
) -> ScriptCall:
    names = shard_keys_of(hold.organization_id)
    org, key = hold.organization_id, hold.key_id
    holder = holder_keys_of(org, key)
    keys = (
        names.epoch,
        holder.org,
        holder.key,
        names.hold(hold.request_id),
        names.deadlines,
        names.usage,
        names.orphaned(hold.request_id),
        names.index,
        holder.org_input,
        holder.org_output,
        holder.key_input,
        holder.key_output,
    )
    args = (
        hold.request_id,
        org,
        key,
        cost_nanos,
        event,
        input_tokens,
        output_tokens,
        hold.day,
        "release" if release else "",
        TOMBSTONE_SECONDS,
        hold.admitted_at_ms,
        hold.spenders,
    )
    return ScriptCall(names.prefix, SCRIPT, keys, args)


def read_reply(reply: Reply, hold: Hold, *, cost_nanos: int) -> Closed:
    """Raises InvalidAmountError; then nothing was written."""
    if reply[0] == b"INVALID":
        raise InvalidAmountError(f"Request {hold.request_id} would cost {cost_nanos} nanos.")
    return Closed(stream_id=reply[1].decode(), epoch=reply[2].decode())
