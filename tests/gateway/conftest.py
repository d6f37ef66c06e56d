"""One CrossModel for all tests of the gateway. Each test makes its own organizations in it, as tenants do."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop
from pytest_django.plugin import DjangoDbBlocker

from tests.support.extra_gateway import ExtraGateway, extra_gateway
from tests.support.world import Caller, World, standing_world, visit

# What a gateway waits for in vain, it waits for about a second here.
IMPATIENT = {
    "CROSSMODEL_UPSTREAM_FIRST_BYTE_SECONDS": "1.0",
    "CROSSMODEL_UPSTREAM_IDLE_SECONDS": "0.8",
    "CROSSMODEL_REQUEST_TOTAL_SECONDS": "3",
    "CROSSMODEL_PING_SECONDS": "0.2",
    "CROSSMODEL_SETTLE_BOUND_SECONDS": "0.5",
    "CROSSMODEL_CLIENT_STALL_SECONDS": "1.0",
    "CROSSMODEL_DRAIN_SECONDS": "0.6",
    "CROSSMODEL_COUNT_TOKENS_PER_MINUTE": "3",
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Run what is tested by itself in the event loop that a gateway has."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def _standing_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with standing_world(tmp_path_factory.mktemp("world"), "world") as world:
        yield world


@pytest.fixture
def world(_standing_world: World, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    with visit(_standing_world, django_db_blocker) as world:
        yield world


@pytest.fixture(scope="session")
def second_gateway(_standing_world: World) -> Iterator[ExtraGateway]:
    """Another gateway process beside the world's own."""
    with extra_gateway(_standing_world, "second-gateway") as gateway:
        yield gateway


@pytest.fixture(scope="session")
def impatient(_standing_world: World) -> Iterator[ExtraGateway]:
    """A gateway process with the settings of IMPATIENT."""
    with extra_gateway(_standing_world, "impatient-gateway", **IMPATIENT) as gateway:
        yield gateway


@pytest.fixture
def alice(world: World) -> Caller:
    """An organization with 10 USD and a key without limits of its own."""
    return world.caller()
