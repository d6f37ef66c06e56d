"""One CrossModel for all tests of clients. Each test makes its own organizations in it, as tenants do."""

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.support.world import Caller, World, standing_world, visit


@pytest.fixture(scope="package")
def _standing_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with standing_world(tmp_path_factory.mktemp("clients"), "clients") as world:
        yield world


@pytest.fixture
def world(_standing_world: World, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    with visit(_standing_world, django_db_blocker) as world:
        yield world


@pytest.fixture
def alice(world: World) -> Caller:
    """An organization with 10 USD and a key without limits of its own."""
    return world.caller()
