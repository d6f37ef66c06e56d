"""ADMIT: judge a request against every limit and write its hold. Pure."""

from dataclasses import dataclass
from typing import NamedTuple

from billing.admission.calls.not_ready import NotReady, read_not_ready
from billing.admission.calls.script_call import Reply, ScriptCall
from billing.admission.errors import InvalidAmountError
from billing.admission.hold import Hold
from billing.admission.redis_keys import holder_keys_of, shard_keys_of
from billing.admission.scripts import read_script

SCRIPT = read_script("admit")


class RateState(NamedTuple):
    """`limit` and `remaining` are -1 where no limit is set; `reset_us` is microseconds until the rate is full again."""

    limit: int
    remaining: int
    reset_us: int


class Rates(NamedTuple):
    requests: RateState
    input_tokens: RateState
    output_tokens: RateState


class Admitted(NamedTuple):
    day: int
    available_nanos: int
    shows_cost: bool
    admitted_at_ms: int
    spenders: str  # Whom it counts for besides its organization and key, as CLOSE takes it.
    rates: Rates


@dataclass(frozen=True, slots=True)
class Refused:
    """`code` names the limit. `current` is what is there, `limit` what was needed or allowed; units follow the code."""

    code: str
    current: int
    limit: int
    reset_us: int
    rates: Rates


def make_call(hold: Hold, *, key_config_version: int, lease_ms: int, max_waiting_events: int) -> ScriptCall:
    names = shard_keys_of(hold.organization_id)
    org, key = hold.organization_id, hold.key_id
    holder = holder_keys_of(org, key)
    keys = (
        names.epoch,
        names.opens,
        holder.org,
        holder.key,
        names.hold(hold.request_id),
        names.deadlines,
        names.usage,
        names.orphaned(hold.request_id),
        holder.org_requests,
        holder.org_input,
        holder.org_output,
        holder.key_requests,
        holder.key_input,
        holder.key_output,
    )
    args = (
        hold.request_id,
        org,
        key,
        hold.amount_nanos,
        lease_ms,
        hold.input_tokens,
        hold.output_tokens,
        key_config_version,
        max_waiting_events,
        hold.orphan_event,
        hold.end_user,
    )
    return ScriptCall(names.prefix, SCRIPT, keys, args)


def read_reply(reply: Reply, hold: Hold) -> Admitted | Refused | NotReady:
    """Raises InvalidAmountError; then nothing was written."""
    verdict = reply[0]
    if verdict == b"ADMITTED":
        return Admitted(
            day=int(reply[1]),
            available_nanos=int(reply[2]),
            shows_cost=reply[3] == b"1",
            admitted_at_ms=int(reply[4]),
            spenders=reply[5].decode(),
            rates=_read_rates(reply, 6),
        )
    if verdict == b"REFUSED":
        return Refused(
            code=reply[1].decode(),
            current=int(reply[2]),
            limit=int(reply[3]),
            reset_us=int(reply[4]),
            rates=_read_rates(reply, 5),
        )
    if verdict == b"INVALID":
        raise InvalidAmountError(f"Request {hold.request_id} would hold {hold.amount_nanos} nanos.")
    return read_not_ready(reply)


def _read_rates(reply: Reply, start: int) -> Rates:
    numbers = [int(word) for word in reply[start : start + 9]]
    return Rates(RateState(*numbers[0:3]), RateState(*numbers[3:6]), RateState(*numbers[6:9]))
