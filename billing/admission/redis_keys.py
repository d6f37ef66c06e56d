"""The keys in Redis. All keys of an organization carry the hash tag of its shard. Pure."""

from functools import lru_cache
from typing import NamedTuple

from billing.shards import SHARD_COUNT, shard_of

MAX_KNOWN_HOLDERS = 10_000
CLOCK = "clock"  # Names a server to ask the time of; the key is never set.
PREFIXES = tuple(f"{{s{shard}}}:" for shard in range(SHARD_COUNT))


def prefix_of(organization_id: int) -> str:
    return PREFIXES[shard_of(organization_id)]


class ShardKeys:
    """The keys that a shard has once."""

    __slots__ = ("deadlines", "epoch", "index", "opens", "prefix", "reaper", "usage", "usage_count", "vanished")

    def __init__(self, shard: int) -> None:
        self.prefix = PREFIXES[shard]
        self.epoch = self.prefix + "epoch"
        self.opens = self.prefix + "opens"
        self.index = self.prefix + "index"
        self.deadlines = self.prefix + "deadlines"
        self.usage = self.prefix + "usage"
        self.usage_count = self.usage + ":count"
        self.vanished = self.usage + ":vanished"
        self.reaper = self.prefix + "reaper"

    def org(self, organization_id: int) -> str:
        return f"{self.prefix}org:{organization_id}"

    def key(self, key_id: int) -> str:
        return f"{self.prefix}key:{key_id}"

    def hold(self, request_id: str) -> str:
        return f"{self.prefix}hold:{request_id}"

    def orphaned(self, request_id: str) -> str:
        return f"{self.prefix}orphaned:{request_id}"

    def spenders(self, organization_id: int) -> str:
        """Name the list of an organization's members and end users of whom Redis knows."""
        return f"{self.prefix}spenders:{organization_id}"

    def rate(self, scope: str, holder_id: int, kind: str) -> str:
        return f"{self.prefix}rate:{scope}:{holder_id}:{kind}"


SHARDS = tuple(ShardKeys(shard) for shard in range(SHARD_COUNT))


def shard_keys_of(organization_id: int) -> ShardKeys:
    return SHARDS[shard_of(organization_id)]


class HolderKeys(NamedTuple):
    """The keys of one organization and one of its API keys: the same for each of its requests."""

    org: str
    key: str
    org_requests: str
    org_input: str
    org_output: str
    key_requests: str
    key_input: str
    key_output: str


@lru_cache(maxsize=MAX_KNOWN_HOLDERS)
def holder_keys_of(organization_id: int, key_id: int) -> HolderKeys:
    names = shard_keys_of(organization_id)
    rates = [
        names.rate(scope, holder_id, kind)
        for scope, holder_id in (("org", organization_id), ("key", key_id))
        for kind in ("requests", "input", "output")
    ]
    return HolderKeys(names.org(organization_id), names.key(key_id), *rates)
