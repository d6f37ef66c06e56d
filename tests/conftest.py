"""What every test has: a real Postgres and a real Redis that are its own, and an empty Redis at its start."""

import os
from collections.abc import Iterator
from typing import cast

import django
import pytest
import redis

from billing.admission.topology import open_client, read_topology
from tests.support.servers import prepare_environment

REDIS_SECONDS = 30.0

prepare_environment()
django.setup()


@pytest.fixture(scope="session")
def redis_client() -> Iterator[redis.Redis]:
    """A plain client of the session's Redis, to look at what is in it."""
    client = open_client(read_topology(os.environ["REDIS_URL"]), timeout_seconds=REDIS_SECONDS)
    yield cast(redis.Redis, client)  # A client of a Cluster answers the same calls.
    client.close()


@pytest.fixture(autouse=True)
def _empty_redis(request: pytest.FixtureRequest, redis_client: redis.Redis) -> None:
    """Empty Redis before each test, unless the test is marked `keeps_redis` (a gateway runs longer than one test)."""
    if request.node.get_closest_marker("keeps_redis") is None:
        redis_client.flushall()
