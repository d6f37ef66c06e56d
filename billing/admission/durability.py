"""Whether Redis keeps what it acknowledges: its version, its eviction policy, its log.

Checked at start and in `manage.py status`. What gets evicted is money, so production does not start on a Redis that
evicts. A log that is not written at once loses the last writes with the machine: gateways send them again from their
spools, so that is told only. A managed Redis may keep its settings to itself; what cannot be known is told as such.
"""

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple

import redis
from django.conf import settings
from redis.cluster import RedisCluster

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis.blocking_client import redis_client

MIN_VERSION = (6, 2)
WANTED_POLICY, WANTED_FSYNC = "noeviction", "always"
UNKNOWN = "unknown"

logger = logging.getLogger(__name__)


class UnfitRedisError(Exception):
    """Redis would lose money; the text names the settings."""


class Shortcoming(NamedTuple):
    """`loses_money` is true of what production refuses to start with."""

    text: str
    loses_money: bool


def check_at_start() -> None:
    """Log what Redis falls short of. Raises UnfitRedisError in production, if it would lose money.

    A Redis that does not answer is no reason: it is waited for, as while everything runs.
    """
    try:
        shortcomings = find_shortcomings()
    except AdmissionUnavailableError as error:
        logger.warning("It is not known yet whether Redis keeps what it acknowledges: %s", error)
        return
    for item in shortcomings:
        logger.warning("%s", item.text)
    grave = [item.text for item in shortcomings if item.loses_money]
    if grave and settings.PRODUCTION:
        raise UnfitRedisError(" ".join(grave))


def find_shortcomings() -> list[Shortcoming]:
    """Return what the servers fall short of, each once. Raises AdmissionUnavailableError."""
    found: dict[Shortcoming, None] = {}
    try:
        for server in servers():
            found.update(dict.fromkeys(_shortcomings_of(server)))
    except (redis.RedisError, OSError, AttributeError) as error:
        raise AdmissionUnavailableError(f"Redis cannot be used: {error}") from error
    return list(found)


def servers() -> list[Any]:
    """Return a client of each server that holds shards."""
    client = redis_client()
    if isinstance(client, RedisCluster):
        return [client.get_redis_connection(node) for node in client.get_primaries()]
    return [client]


def _shortcomings_of(server: Any) -> Iterator[Shortcoming]:
    facts = {**server.info("server"), **server.info("memory"), **server.info("persistence")}
    version = str(facts.get("redis_version", UNKNOWN))
    if not _is_new_enough(version):
        wanted = ".".join(map(str, MIN_VERSION))
        yield Shortcoming(f"Redis is version {version}, and {wanted} or later is needed.", loses_money=True)
    policy = str(facts.get("maxmemory_policy") or _configured(server, "maxmemory-policy"))
    if policy != WANTED_POLICY:
        yield Shortcoming(
            f"Redis has maxmemory-policy {policy}, and it must be {WANTED_POLICY}: an evicted key is lost money.",
            loses_money=policy != UNKNOWN,
        )
    if not facts.get("aof_enabled"):
        yield Shortcoming(
            "Redis has appendonly no: a restart empties it, and gateways must send everything again.", False
        )
        return
    fsync = _configured(server, "appendfsync")
    if fsync != WANTED_FSYNC:
        yield Shortcoming(
            f"Redis has appendfsync {fsync}, and it should be {WANTED_FSYNC}: a crash of the machine loses writes.",
            False,
        )


def _is_new_enough(version: str) -> bool:
    numbers = version.split(".")[:2]
    return all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) >= MIN_VERSION


def _configured(server: Any, name: str) -> str:
    """Return a setting, or UNKNOWN where it may not be asked for."""
    try:
        return str(server.config_get(name).get(name, UNKNOWN))
    except redis.ResponseError:
        return UNKNOWN
