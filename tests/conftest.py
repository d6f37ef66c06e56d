"""What every test has: a real Postgres and a real Redis that are its own, and an empty Redis at its start."""

import os
from collections.abc import Iterator
from typing import cast

import django
import pytest
import redis

from billing.admission.topology import open_client, read_topology
from tests.support.servers import prepare_environment
from tests.support.sharing_out import Scheduler, is_one_of_many, longest_first, runs_no_tests

REDIS_SECONDS = 30.0


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Start the servers and set Django up: this hook is called before any other conftest is read, and they need both.

    A process that runs no tests itself starts none. Processes side by side empty their Redis, so none is shared.
    """
    config = pluginmanager.get_plugin("pytestconfig")
    assert isinstance(config, pytest.Config)
    if not runs_no_tests(config):
        prepare_environment()
        django.setup()
        return
    if os.environ.get("REDIS_URL"):
        raise pytest.UsageError("REDIS_URL names one Redis, which several processes cannot share: leave out -n.")
    os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
    django.setup()
    del os.environ["DJANGO_SETTINGS_MODULE"]  # The processes that it starts must set their servers up first.


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduler:
    config.option.loadscopereorder = False
    return Scheduler(config, log)


@pytest.hookimpl(trylast=True)  # Within a unit tests stay in the order that pytest-django has put them in.
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if is_one_of_many():
        longest_first(items)


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
