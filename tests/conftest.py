"""What every test has: a real Postgres and a real Redis that are its own, and an empty Redis at its start."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import django
import hypothesis
import pytest
import redis
from django.contrib.auth.hashers import PBKDF2PasswordHasher
from pytest_django import Settings
from pytest_django.plugin import DjangoDbBlocker

from billing.admission.redis.topology import open_client, read_topology
from crossmodel_site.embedded.ports import find_free_port
from crossmodel_site.local.environment import forget_variables_of_others
from tests.support.servers import prepare_environment
from tests.support.sharing_out import Scheduler, is_one_of_many, longest_first, runs_no_tests

if TYPE_CHECKING:
    from tests.support.people import People

REDIS_SECONDS = 30.0
# The real hash of a password, made as often as people of tests sign in, would be a minute of the suite.
HASH_ITERATIONS = 1_000

# A busy machine makes examples slowly, which says nothing of what they are tried on.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Start the servers and set Django up: this hook is called before any other conftest is read, and they need both.

    A process that runs no tests itself starts none. Processes side by side empty their Redis, so none is shared.
    """
    config = pluginmanager.get_plugin("pytestconfig")
    assert isinstance(config, pytest.Config)
    forget_variables_of_others()
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # All that tests ask is on this machine.
    if not runs_no_tests(config):
        prepare_environment()
        django.setup()
        PBKDF2PasswordHasher.iterations = HASH_ITERATIONS
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
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Make the partitions of the months, as housekeeping does within the first minute of an installation."""
    from billing.partitions import create_partitions
    from tests.support.databases import has_own_database, migrated_copy
    from tests.support.emptying import empty_tables_quickly

    if not has_own_database():
        yield
        return
    empty_tables_quickly()
    with django_db_blocker.unblock():
        create_partitions(now=datetime.now(UTC))
    with migrated_copy():
        yield


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


@pytest.fixture
def people(db: None) -> "People":
    from tests.support.people import make_people  # It imports models, which Django must be set up for.

    return make_people()


@pytest.fixture
def redis_away(settings: Settings) -> None:
    """Point this process at a port where no Redis listens: as real as one that was killed."""
    settings.REDIS_URL = f"redis://127.0.0.1:{find_free_port()}/0"
