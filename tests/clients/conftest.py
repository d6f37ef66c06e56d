"""One CrossModel for all tests of clients. Each test makes its own organizations in it, as tenants do."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from crossmodel_site.embedded import RedisServer
from tests.support.world import Caller, World, create_database, looking_at


@pytest.fixture(scope="package")
def _standing_world(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    folder: Path = tmp_path_factory.mktemp("clients")
    redis_server = RedisServer(folder / "redis", durable=False)
    redis_server.start()
    world = World(
        folder,
        postgres_url=create_database(os.environ["DATABASE_URL"], f"clients_{os.getpid()}"),
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


@pytest.fixture
def alice(world: World) -> Caller:
    """An organization with 10 USD and a key without limits of its own."""
    return world.caller()
