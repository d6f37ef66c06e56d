"""Admission as workers, commands and pages call it: blocking, and off the request path.

A transport: what a script is given and answers is said in `calls/`. All functions raise AdmissionUnavailableError when
Redis does not answer; what they were about is then done later.
"""

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, cast

import redis
from django.conf import settings
from redis.cluster import RedisCluster

from billing.admission.calls import confirm, pace, reap, rebuild, state
from billing.admission.calls import publish as publish_call
from billing.admission.calls.pace import TooFast
from billing.admission.calls.publish import Publication
from billing.admission.calls.reap import ShardStatus
from billing.admission.calls.rebuild import Built
from billing.admission.calls.script_call import REBUILD, Reply, ScriptCall
from billing.admission.calls.state import AdmissionState
from billing.admission.damage import MendingPace, tells_of_damage
from billing.admission.errors import AdmissionUnavailableError, ShardRebuildingError
from billing.admission.redis.blocking_client import redis_client, run_script, translated_errors
from billing.admission.redis_keys import PREFIXES, SHARDS
from billing.shards import SHARD_COUNT
from billing.usage_stream import SettledBatch, StreamEntry, read_entry

logger = logging.getLogger(__name__)

_mending = MendingPace()


def rebuild_shard(shard: int, *, force: bool = False) -> bool:
    """Take a shard over on the Redis process that runs now. Returns whether there was anything to do."""
    return _build(PREFIXES[shard], rebuild.FORCE if force else rebuild.WHERE_DUE).was_due


def standing_epoch(shard: int) -> str:
    """Return the epoch of a shard, which is built first where that is due."""
    return _build(PREFIXES[shard]).epoch


def reap_shards() -> list[ShardStatus]:
    """Close expired holds of every shard from their checkpoints, and return what waits in each."""
    client = redis_client()
    if isinstance(client, RedisCluster):
        replies = _reap_on_cluster(client)
    else:
        with translated_errors():
            replies = dict(enumerate(_reap_on(client, range(SHARD_COUNT))))
    statuses = []
    for shard in range(SHARD_COUNT):
        reply = replies.get(shard)
        if reply is None or isinstance(reply, Exception) or reply[0] == REBUILD:
            try:
                statuses.append(reap.read_reply(_call_built(_reap_call(shard)), shard))
            except AdmissionUnavailableError as error:
                if not isinstance(error.__cause__, redis.ResponseError):
                    raise
                logger.error("The holds of shard %d could not be checked: %s", shard, error)  # The others can.
        else:
            statuses.append(reap.read_reply(reply, shard))
    return statuses


def read_waiting(shard: int, *, count: int) -> list[StreamEntry]:
    """Return the oldest usage events that wait for settlement in a shard."""
    with translated_errors():
        # redis-py types its replies for every protocol and decoding at once; here they are bytes.
        entries = cast(list[tuple[bytes, dict[bytes, bytes]]], redis_client().xrange(SHARDS[shard].usage, count=count))
    return [read_entry(stream_id.decode(), fields) for stream_id, fields in entries]


def oldest_waiting_ms(shards: Sequence[int]) -> int:
    """Return when the oldest waiting event of these shards was appended, in ms since 1970; 0 when none waits."""
    oldest = 0
    with translated_errors():
        for shard in shards:
            for stream_id, _ in cast(list[tuple[bytes, Any]], redis_client().xrange(SHARDS[shard].usage, count=1)):
                appended_ms = int(stream_id.partition(b"-")[0])
                oldest = min(oldest or appended_ms, appended_ms)
    return oldest


def confirm_batch(batch: SettledBatch, *, epoch: str) -> int:
    """Tell Redis what Postgres has committed. Returns how many entries it deleted: none if the shard was rebuilt.

    `epoch` is the one that stood before the entries were read.
    """
    return sum([confirm.read_reply(_call_built(call)) for call in confirm.make_calls(batch, epoch=epoch)])


def publish(publication: Publication, *, epoch: str) -> bool:
    """Bring one organization or key into Redis, as read from Postgres while `epoch` stood.

    Returns False when the shard was rebuilt since: then it must be read again.
    """
    return publish_call.read_reply(_call_built(publish_call.make_call(publication, epoch=epoch)))


def read_admission_state(organization_id: int) -> AdmissionState | None:
    """Return what admission enforces for an organization; None when Redis has not loaded it yet."""
    return state.read_reply(_call_built(state.make_call(organization_id)))


def pace_management(
    *, organization_id: int, key_id: int, key_per_minute: int, organization_per_minute: int
) -> TooFast | None:
    """Count a call of the management API; say so when it is one too many, which is then not counted."""
    call = pace.make_call(
        organization_id=organization_id,
        key_id=key_id,
        key_per_minute=key_per_minute,
        organization_per_minute=organization_per_minute,
    )
    return pace.read_reply(_call_built(call))


def _reap_on_cluster(client: RedisCluster) -> dict[int, Any]:
    """Return the replies by shard, in one round trip for each node. 64 of them, each with a sync of the log, are slow.

    Shards without a reply are for the caller to ask one by one, which finds out who has them now.
    """
    nodes: dict[str, tuple[redis.Redis, list[int]]] = {}
    replies: dict[int, Any] = {}
    with translated_errors():
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
        call = _reap_call(shard)
        pipeline.evalsha(call.script.sha1, len(call.keys), *call.keys, *call.args)
    return pipeline.execute(raise_on_error=False)


def _reap_call(shard: int) -> ScriptCall:
    times = settings.ADMISSION
    return reap.make_call(shard, gap_ms=int(times.reaper_gap_seconds * 1000), lease_ms=int(times.lease_seconds * 1000))


def _call_built(call: ScriptCall) -> Reply:
    """Run a script; build the shard first where that is due."""
    reply = _call(call)
    if reply[0] == REBUILD:
        _build(call.prefix)
        reply = _call(call)
    if reply[0] == REBUILD:
        raise ShardRebuildingError(call.prefix)
    return reply


def _call(call: ScriptCall) -> Reply:
    """Run a script; where it stumbles over what no script of ours has written, mend the shard and run it again."""
    try:
        return _send(call)
    except AdmissionUnavailableError as error:
        if not tells_of_damage(error) or not _mending.may_mend(call.prefix):
            raise
        logger.error("Shard %s is rebuilt, because another program has changed it: %s", call.prefix, error)
    _build(call.prefix, rebuild.MEND, call.keys)
    return _send(call)


def _build(prefix: str, how: str = rebuild.WHERE_DUE, also: Sequence[str] = ()) -> Built:
    reopen_ms = int(settings.ADMISSION.reopen_seconds * 1000)
    return rebuild.read_reply(_send(rebuild.make_call(prefix, reopen_ms=reopen_ms, how=how, also=also)))


def _send(call: ScriptCall) -> Reply:
    reply: Reply = run_script(call.script, call.keys, call.args)
    return reply
