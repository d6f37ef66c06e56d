"""PUBLISH: what Redis is told of an organization, key or spender, as read from Postgres. Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from billing.admission.calls.script_call import Arg, Reply, ScriptCall
from billing.admission.redis_keys import shard_keys_of
from billing.admission.scripts import read_script

# A budget of a month reaches back 31 days; a day more is kept for requests admitted just before midnight.
DAYS_KEPT = 33
MAX_SPENDERS_PER_ORGANIZATION = 10_000  # Known to Redis at once; others come back from Postgres.
SCRIPT, SPENDER_SCRIPT = read_script("publish"), read_script("publish_spender")


@dataclass(frozen=True, slots=True)
class Publication:
    """`member` is "org:<id>", "key:<id>" or a spender as billing.budgets.spenders names it, whose config version is its
    organization's. `credit_nanos` and `version` are those of the balance; None for others than an organization.

    `expiries` are those of the lots in the credit: see billing.usage_stream.SpendableCredit.
    """

    organization_id: int
    member: str
    config_version: int
    config: Mapping[str, str | int]
    today: int
    credit_nanos: int | None = None
    version: int = 0
    expiries: str = ""
    posted_nanos_by_day: Mapping[int, int] = field(default_factory=dict)


def make_call(publication: Publication, *, epoch: str) -> ScriptCall:
    """`epoch` is the one that stood before this was read from Postgres."""
    names = shard_keys_of(publication.organization_id)
    if not publication.member.startswith(("org:", "key:")):
        return _make_spender_call(publication, epoch=epoch)
    keys = [names.epoch, names.prefix + publication.member, names.index]
    args: list[Arg] = [
        publication.member,
        publication.config_version,
        "" if publication.credit_nanos is None else publication.credit_nanos,
        publication.version,
        publication.today - DAYS_KEPT,
        len(publication.config),
        epoch,
        publication.expiries,
    ]
    return ScriptCall(names.prefix, SCRIPT, keys, [*args, *_pairs(publication)])


def read_reply(reply: Reply) -> bool:
    """Return False when it must be read again: the shard was rebuilt since, or has no room for a spender just now."""
    return bool(reply[0] == b"PUBLISHED")


def _make_spender_call(publication: Publication, *, epoch: str) -> ScriptCall:
    names = shard_keys_of(publication.organization_id)
    keys = [names.epoch, names.prefix + publication.member, names.spenders(publication.organization_id)]
    args: list[Arg] = [
        publication.member,
        publication.config_version,
        publication.today - DAYS_KEPT,
        len(publication.config),
        epoch,
        MAX_SPENDERS_PER_ORGANIZATION,
    ]
    return ScriptCall(names.prefix, SPENDER_SCRIPT, keys, [*args, *_pairs(publication)])


def _pairs(publication: Publication) -> Iterator[Arg]:
    for name, value in publication.config.items():
        yield from (name, value)
    for day, nanos in publication.posted_nanos_by_day.items():
        yield from (day, nanos)
