"""One CrossModel for all tests of the gateway. Each test makes its own organizations in it, as tenants do."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from crossmodel_site.embedded import RedisServer
from tests.support.extra_gateway import ExtraGateway, extra_gateway
from tests.support.world import Caller, World, create_database, looking_at

# What a gateway waits for in vain, it waits for about a second here.
IMPATIENT = {
    "CROSSMODEL_UPSTREAM_FIRST_BYTE_SECONDS": "1.0",
    "CROSSMODEL_UPSTREAM_IDLE_SECONDS": "0.8",
    "CROSSMODEL_REQUEST_TOTAL_SECONDS": "3",
    "CROSSMODEL_PING_SECONDS": "0.2",
    "CROSSMODEL_SETTLE_BOUND_SECONDS": "0.5",
    "CROSSMODEL_DRAIN_SECONDS": "0.6",
}


@pytest.fixture(scope="session")
def _standing_world(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("world")
    redis_server = RedisServer(folder / "redis", durable=False)
    redis_server.start()
    world = World(
        folder,
        postgres_url=create_database(os.environ["DATABASE_URL"], f"world_{os.getpid()}"),
        redis_url=redis_server.url,
    )
    try:
        world.start()
        yield world
    finally:
        world.stop()
        redis_server.stop()


@pytest.fixture
def world(_standing_world: World, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    with django_db_blocker.unblock(), looking_at(_standing_world):
        yield _standing_world
    _standing_world.sandbox.clear()


@pytest.fixture(scope="session")
def second_gateway(_standing_world: World) -> Iterator[ExtraGateway]:
    """Another gateway process beside the world's own."""
    with extra_gateway(_standing_world, "second-gateway") as gateway:
        yield gateway


@pytest.fixture(scope="session")
def impatient(_standing_world: World) -> Iterator[ExtraGateway]:
    """A gateway process with the time-outs of IMPATIENT."""
    with extra_gateway(_standing_world, "impatient-gateway", **IMPATIENT) as gateway:
        yield gateway


@pytest.fixture
def alice(world: World) -> Caller:
    """An organization with 10 USD and a key without limits of its own."""
    return world.caller()
