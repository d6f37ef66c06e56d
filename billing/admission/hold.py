"""A named hold as the gateway keeps it. Pure."""

from dataclasses import dataclass


@dataclass(slots=True)
class Hold:
    """Kept for as long as its request runs. Amounts in nano-dollars."""

    request_id: str
    organization_id: int
    key_id: int
    amount_nanos: int
    input_tokens: int
    output_tokens: int
    orphan_event: bytes
    end_user: str = ""  # Its digest: see billing.budgets.spenders.
    day: int = 0
    admitted_at_ms: int = 0  # By Redis' clock; 0 before it is admitted.
    spenders: str = ""  # Members and end users that it was counted for.
    cost_so_far_nanos: int = 0
    checkpoint: bytes = b""
    checkpoint_is_new: bool = False
