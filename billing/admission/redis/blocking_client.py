"""Runs scripts on Redis from workers, commands and pages: blocking, one after the other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import redis
from django.conf import settings
from redis.cluster import RedisCluster

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis.script import Script
from billing.admission.redis.topology import open_client, read_topology

TIMEOUT_SECONDS = 5.0


@lru_cache(maxsize=4)
def _client_for(url: str) -> "redis.Redis | RedisCluster":
    return open_client(read_topology(url), timeout_seconds=TIMEOUT_SECONDS)


def forget_clients() -> None:
    """Connect again at the next call."""
    _client_for.cache_clear()


def redis_client() -> "redis.Redis | RedisCluster":
    return _client_for(settings.REDIS_URL)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise AdmissionUnavailableError for whatever redis-py raises."""
    try:
        yield
    except (redis.RedisError, OSError) as error:
        raise AdmissionUnavailableError(f"Redis cannot be used: {error}") from error
    except AttributeError as error:
        # redis-py's client of a Cluster that has lost every node it knew; another one asks the nodes of REDIS_URL.
        forget_clients()
        raise AdmissionUnavailableError(f"The Redis Cluster cannot be used: {error}") from error


def run_script(script: Script, keys: Sequence[str], args: Sequence[bytes | str | int]) -> Any:
    """Return the reply of one script. Raises AdmissionUnavailableError."""
    client = redis_client()
    with translated_errors():
        try:
            return client.evalsha(script.sha1, len(keys), *keys, *args)
        except redis.exceptions.NoScriptError:
            return client.eval(script.text, len(keys), *keys, *args)
