"""STATE: what an organization has, holds and owes right now. Pure."""

from dataclasses import dataclass

from billing.admission.calls.script_call import Reply, ScriptCall
from billing.admission.redis_keys import shard_keys_of
from billing.admission.scripts import read_script

SCRIPT = read_script("state")


@dataclass(frozen=True, slots=True)
class AdmissionState:
    """What admission enforces right now. available = credit + limit - unsettled - held. Nano-dollars.

    `stood_ms` is how long these counters have been kept: what ran before and has not come back is not in them. It is 0
    while gateways put back what Redis has lost.
    """

    credit_nanos: int
    limit_nanos: int
    unsettled_nanos: int
    held_nanos: int
    open_requests: int
    stood_ms: int = 0

    @property
    def available_nanos(self) -> int:
        return self.credit_nanos + self.limit_nanos - self.unsettled_nanos - self.held_nanos


def make_call(organization_id: int) -> ScriptCall:
    names = shard_keys_of(organization_id)
    return ScriptCall(names.prefix, SCRIPT, [names.epoch, names.org(organization_id), names.opens], [])


def read_reply(reply: Reply) -> AdmissionState | None:
    """Return None when Redis has not loaded the organization yet."""
    if reply[0] != b"STATE":
        return None
    return AdmissionState(*(int(word) for word in reply[1:7]))
