"""Admission as workers, commands and pages call it: blocking, and off the request path.

All functions raise AdmissionUnavailableError when Redis does not answer; what they were about is then done later.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar, cast

import redis
from django.conf import settings
from redis.cluster import RedisCluster

from billing.admission import scripts
from billing.admission.client import TOMBSTONE_SECONDS, UpstreamNews
from billing.admission.damage import MendingPace, tells_of_damage
from billing.admission.errors import AdmissionUnavailableError, ShardRebuildingError
from billing.admission.names import SHARDS, UPSTREAM_NEWS
from billing.admission.publishing import Publication, publish_arguments
from billing.admission.topology import open_client, read_topology
from billing.shards import SHARD_COUNT, shard_of
from billing.stream import PostedDay, SettledBatch, StreamEntry

WORKER_TIMEOUT_SECONDS = 5.0
MAX_REAPED_PER_PULSE = 500
MAX_MS_DIGITS = 15
MAX_SCRIPT_ARGUMENTS = 4_000  # Lua's unpack and the patience of other callers bound how much one script takes.


T = TypeVar("T")

logger = logging.getLogger(__name__)

_mending = MendingPace()


@dataclass(frozen=True, slots=True)
class ShardPulse:
    shard: int
    waiting_events: int
    reaped_holds: int
    holds_in_flight: int


@dataclass(frozen=True, slots=True)
class AdmissionFigures:
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


@lru_cache(maxsize=4)
def _client_for(url: str) -> "redis.Redis | RedisCluster":
    return open_client(read_topology(url), timeout_seconds=WORKER_TIMEOUT_SECONDS)


def forget_clients() -> None:
    """Connect anew at the next call."""
    _client_for.cache_clear()


def redis_client() -> "redis.Redis | RedisCluster":
    return _client_for(settings.REDIS_URL)


@contextmanager
def _translated_errors() -> Iterator[None]:
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise AdmissionUnavailableError(f"Redis cannot be used: {error}") from error
    except AttributeError as error:
        # redis-py's client of a Cluster that has lost every node it knew; another one asks the nodes of REDIS_URL.
        forget_clients()
        raise AdmissionUnavailableError(f"The Redis Cluster cannot be used: {error}") from error


def run_script(script: scripts.Script, keys: Sequence[str], args: Sequence[bytes | str | int]) -> Any:
    """Return the reply of one script."""
    client = redis_client()
    with _translated_errors():
        try:
            return client.evalsha(script.sha1, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return client.eval(script.text, len(keys), *keys, *args)


def rebuild_shard(shard: int, *, force: bool = False) -> bool:
    """Take a shard over on the Redis process that runs now. Returns whether there was anything to do."""
    return bool(_build(shard, "force" if force else "")[0] == b"BUILT")


def standing_epoch(shard: int) -> str:
    """Return the epoch of a shard, which is built first where that is due."""
    return str(_build(shard, "")[1].decode())


def _build(shard: int, how: str, also: Sequence[str] = ()) -> Sequence[Any]:
    names = SHARDS[shard]
    reopen_ms = int(settings.ADMISSION["reopen_seconds"] * 1000)
    keys = [names.epoch, names.opens, names.index, names.deadlines, names.usage, *also]
    reply: Sequence[Any] = run_script(scripts.REBUILD, keys, [names.prefix, reopen_ms, how])
    return reply


def _run_mending(
    shard: int, script: scripts.Script, keys: Sequence[str], args: Sequence[bytes | str | int]
) -> Sequence[Any]:
    """Run a script; where it stumbles over what no script of ours has written, mend the shard and run it again."""
    reply: Sequence[Any]
    try:
        reply = run_script(script, keys, args)
    except AdmissionUnavailableError as error:
        if not tells_of_damage(error) or not _mending.may_mend(SHARDS[shard].prefix):
            raise
        logger.error("Shard %d is built anew, because somebody else has changed it: %s", shard, error)
        _build(shard, "mend", keys)
        reply = run_script(script, keys, args)
    return reply


def _run_built(
    shard: int, script: scripts.Script, keys: Sequence[str], args: Sequence[bytes | str | int]
) -> Sequence[Any]:
    reply = _run_mending(shard, script, keys, args)
    if reply[0] == b"REBUILD":
        rebuild_shard(shard)
        reply = _run_mending(shard, script, keys, args)
    if reply[0] == b"REBUILD":
        raise ShardRebuildingError(str(shard))
    return reply


def pulse_shards() -> list[ShardPulse]:
    """Settle expired holds of every shard from their checkpoints, and return what waits in each."""
    client = redis_client()
    if isinstance(client, RedisCluster):
        replies = _reap_on_cluster(client)
    else:
        with _translated_errors():
            replies = dict(enumerate(_reap_on(client, range(SHARD_COUNT))))
    pulses = []
    for shard in range(SHARD_COUNT):
        reply = replies.get(shard)
        if reply is None or isinstance(reply, Exception) or reply[0] == b"REBUILD":
            try:
                pulses.append(_pulse_shard(shard))
            except AdmissionUnavailableError as error:
                if not isinstance(error.__cause__, redis.ResponseError):
                    raise
                logger.error("Shard %d cannot be looked after: %s", shard, error)  # The others can.
        else:
            pulses.append(ShardPulse(shard, *(int(word) for word in reply[1:4])))
    return pulses


def _reap_on_cluster(client: RedisCluster) -> dict[int, Any]:
    """Return the replies by shard, in one round trip for each node: 64, each with a sync of the log, outlast a pulse.

    Shards without a reply are for the caller to ask one by one, which finds out who has them now.
    """
    nodes: dict[str, tuple[redis.Redis, list[int]]] = {}
    replies: dict[int, Any] = {}
    with _translated_errors():
        for shard in range(SHARD_COUNT):
            node = client.get_node_from_key(SHARDS[shard].epoch)
            if node is not None:
                nodes.setdefault(node.name, (client.get_redis_connection(node), []))[1].append(shard)
    for connection, shards in nodes.values():
        with suppress(redis.RedisError, OSError):
            replies.update(zip(shards, _reap_on(connection, shards), strict=True))
    return replies


def _reap_on(client: redis.Redis, shards: Iterable[int]) -> list[Any]:
    pipeline = client.pipeline(transaction=False)
    for shard in shards:
        keys, args = _reap_arguments(shard)
        pipeline.evalsha(scripts.REAP.sha1, len(keys), *keys, *args)
    return pipeline.execute(raise_on_error=False)


def _reap_arguments(shard: int) -> tuple[list[str], list[str | int]]:
    names = SHARDS[shard]
    gap_ms = int(settings.ADMISSION["reaper_gap_seconds"] * 1000)
    lease_ms = int(settings.ADMISSION["lease_seconds"] * 1000)
    return (
        [names.epoch, names.deadlines, names.usage, names.reaper],
        [names.prefix, MAX_REAPED_PER_PULSE, gap_ms, lease_ms, TOMBSTONE_SECONDS],
    )


def _pulse_shard(shard: int) -> ShardPulse:
    keys, args = _reap_arguments(shard)
    reply = _run_built(shard, scripts.REAP, keys, args)
    return ShardPulse(shard, *(int(word) for word in reply[1:4]))


def read_waiting(shard: int, *, count: int) -> list[StreamEntry]:
    """Return the oldest usage events that wait for settlement in a shard."""
    with _translated_errors():
        # redis-py types its replies for every protocol and decoding at once; here they are bytes.
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], redis_client().xrange(SHARDS[shard].usage, count=count))
    return [_read_entry(stream_id.decode(), fields) for stream_id, fields in entries]


def _read_entry(stream_id: str, fields: dict[bytes, bytes]) -> StreamEntry:
    try:
        return StreamEntry(
            stream_id=stream_id,
            raw_event=fields[b"event"],
            organization_id=int(fields[b"organization"]),
            key_id=int(fields[b"key"]),
            cost_nanos=int(fields[b"cost"]),
            admitted_day=int(fields[b"day"]),
            admitted_at_ms=_admitted_at_ms(fields),
        )
    except (KeyError, ValueError):
        # No script of ours wrote this. Whole, and of no organization, it ends in quarantine like any unreadable event.
        raw = b" ".join(name + b"=" + value for name, value in fields.items())
        return StreamEntry(stream_id, raw, organization_id=0, key_id=0, cost_nanos=0, admitted_day=0)


def _admitted_at_ms(fields: Mapping[bytes, bytes]) -> int:
    text = fields.get(b"admitted_at", b"0")
    return int(text) if text.isdigit() and len(text) <= MAX_MS_DIGITS else 0


def oldest_waiting_ms(shards: Sequence[int]) -> int:
    """Return when the oldest waiting event of these shards was appended, in ms since 1970; 0 when none waits."""
    oldest = 0
    with _translated_errors():
        for shard in shards:
            for stream_id, _ in cast(list[tuple[bytes, Any]], redis_client().xrange(SHARDS[shard].usage, count=1)):
                appended_ms = int(stream_id.partition(b"-")[0])
                oldest = min(oldest or appended_ms, appended_ms)
    return oldest


def confirm_batch(batch: SettledBatch, *, epoch: str) -> int:
    """Tell Redis what Postgres has committed. Returns how many entries it deleted: none if the shard was built anew.

    `epoch` is the one that stood before the entries were read. All that is posted is told before the first entry goes:
    what a later call has to say is still counted as unsettled then, should it never be made.
    """
    names = SHARDS[batch.shard]
    *told_before, told = _in_parts(batch.posted_days, MAX_SCRIPT_ARGUMENTS // 4)
    entries, *entries_after = _in_parts(batch.stream_ids, MAX_SCRIPT_ARGUMENTS)
    parts: list[tuple[Sequence[str], Sequence[PostedDay]]] = [((), posted) for posted in told_before]
    parts += [(entries, told), *((ids, ()) for ids in entries_after)]
    deleted = 0
    for number, (stream_ids, posted) in enumerate(parts):
        balances = batch.balances if number == 0 else ()
        args: list[bytes | str | int] = [names.prefix, len(stream_ids), len(balances), len(posted), epoch]
        for balance in balances:
            args += (balance.organization_id, balance.credit_nanos, balance.version, balance.expiries)
        for day in posted:
            args += (day.scope, day.holder_id, day.admitted_day, day.posted_nanos)
        reply = _run_built(batch.shard, scripts.CONFIRM, [names.epoch, names.usage], [*args, *stream_ids])
        deleted += int(reply[1])
    return deleted


def _in_parts(items: Sequence[T], size: int) -> list[Sequence[T]]:
    return [items[start : start + size] for start in range(0, len(items), size)] or [()]


def publish(publication: Publication, *, epoch: str) -> bool:
    """Bring one organization or key into Redis, as read from Postgres while `epoch` stood.

    Returns False when the shard was built anew since: then it must be read again.
    """
    keys, args = publish_arguments(publication, epoch=epoch)
    reply = _run_built(shard_of(publication.organization_id), scripts.PUBLISH, keys, args)
    return bool(reply[0] == b"PUBLISHED")


def read_figures(organization_id: int) -> AdmissionFigures | None:
    """Return what admission enforces for an organization; None when Redis has not loaded it yet."""
    shard = shard_of(organization_id)
    names = SHARDS[shard]
    reply = _run_built(shard, scripts.FIGURES, [names.epoch, names.org(organization_id), names.opens], [])
    if reply[0] != b"FIGURES":
        return None
    return AdmissionFigures(*(int(word) for word in reply[1:7]))


def read_upstream_news() -> list[UpstreamNews]:
    """Return what gateways told each other of upstreams that still lasts: open breakers and parked keys."""
    words = [word.decode() for word in run_script(scripts.UPSTREAM_NEWS, [UPSTREAM_NEWS], [])]
    return [UpstreamNews(words[at], words[at + 1], int(words[at + 2])) for at in range(0, len(words), 3)]
