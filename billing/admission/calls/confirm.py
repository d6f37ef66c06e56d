"""CONFIRM: tell Redis what Postgres has committed, in parts that one script can take. Pure."""

from collections.abc import Sequence
from typing import TypeVar

from billing.admission.calls.script_call import Arg, Reply, ScriptCall
from billing.admission.redis_keys import SHARDS
from billing.admission.scripts import read_script
from billing.usage_stream import PostedDay, SettledBatch

# All tenants of a Redis wait while a script runs, so that none may take more than some milliseconds. An entry of the
# stream takes 10 us, and a posted day no more.
MAX_ENTRIES = 150
MAX_POSTED_DAYS = 150
SCRIPT = read_script("confirm")

T = TypeVar("T")


def make_calls(batch: SettledBatch, *, epoch: str) -> list[ScriptCall]:
    """Return the calls, to be made in order. `epoch` is the one that stood before the entries were read.

    All that is posted is told before the first entry goes: what a later call has to say is still counted as unsettled
    then, should it never be made.
    """
    *told_before, told = _in_parts(batch.posted_days, MAX_POSTED_DAYS)
    entries, *entries_after = _in_parts(batch.stream_ids, MAX_ENTRIES)
    parts: list[tuple[Sequence[str], Sequence[PostedDay]]] = [((), posted) for posted in told_before]
    parts += [(entries, told), *((ids, ()) for ids in entries_after)]
    return [
        _make_call(batch, stream_ids, posted, epoch=epoch, tells_balances=number == 0)
        for number, (stream_ids, posted) in enumerate(parts)
    ]


def read_reply(reply: Reply) -> int:
    """Return how many entries were deleted: none if the shard was rebuilt."""
    return int(reply[1])


def _make_call(
    batch: SettledBatch, stream_ids: Sequence[str], posted: Sequence[PostedDay], *, epoch: str, tells_balances: bool
) -> ScriptCall:
    names = SHARDS[batch.shard]
    balances = batch.balances if tells_balances else ()
    args: list[Arg] = [names.prefix, len(stream_ids), len(balances), len(posted), epoch]
    for balance in balances:
        args += (balance.organization_id, balance.credit_nanos, balance.version, balance.expiries)
    for day in posted:
        args += (day.scope, day.holder_id, day.admitted_day, day.posted_nanos)
    return ScriptCall(names.prefix, SCRIPT, [names.epoch, names.usage], [*args, *stream_ids])


def _in_parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)] or [()]
