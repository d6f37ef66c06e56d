"""The answer of an admission that was not judged. Pure."""

from dataclasses import dataclass, field

from billing.admission.calls.script_call import Reply


@dataclass(frozen=True, slots=True)
class NotReady:
    """Nothing was judged: `REBUILD` (try again soon), `STALE` (read the key again), or `LOAD` and what is to be loaded.

    That is `org`, `key`, or a spender as billing.budgets.spenders names it. What is loaded is published under `epoch`.
    """

    reason: str
    epoch: str = field(default="", compare=False)


def read_not_ready(reply: Reply) -> NotReady:
    epoch = reply[2].decode() if len(reply) > 2 else ""
    return NotReady(" ".join(part.decode() for part in reply[:2]), epoch)
