"""Which of the shards of the admission state an organization lives in. Pure."""

SHARD_COUNT = 64


def shard_of(organization_id: int) -> int:
    return organization_id % SHARD_COUNT
