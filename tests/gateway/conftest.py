"""One CrossModel for all tests of the gateway. Each test makes its own organizations in it, as tenants do."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
import uvloop
from pytest_django.plugin import DjangoDbBlocker

from tests.gateway.provider_keys import BAD_KEY, GOOD_KEY, KEYS_VARIABLE
from tests.support.extra_gateway import ExtraGateway, extra_gateway
from tests.support.live_stack import LiveStack, Tenant, standing_stack, visit
from tests.support.trace_collector import TraceCollector

# What a gateway waits for in vain, it waits for about a second here. Its log is for programs.
IMPATIENT = {
    "CROSSMODEL_LOG_FORMAT": "json",
    "OTEL_BSP_SCHEDULE_DELAY": "200",
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


@pytest.fixture(scope="package")
def _standing_stack(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[LiveStack]:
    with standing_stack(tmp_path_factory.mktemp("stack"), "stack") as stack:
        yield stack


@pytest.fixture
def stack(_standing_stack: LiveStack, django_db_blocker: DjangoDbBlocker) -> Iterator[LiveStack]:
    with visit(_standing_stack, django_db_blocker) as stack:
        yield stack


@pytest.fixture(scope="package")
def second_gateway(_standing_stack: LiveStack) -> Iterator[ExtraGateway]:
    """Another gateway process beside the stack's own."""
    with extra_gateway(_standing_stack, "second-gateway") as gateway:
        yield gateway


@pytest.fixture(scope="package")
def collector() -> Iterator[TraceCollector]:
    with TraceCollector() as collector:
        yield collector


@pytest.fixture(scope="package")
def impatient(_standing_stack: LiveStack, collector: TraceCollector) -> Iterator[ExtraGateway]:
    """A gateway process with the settings of IMPATIENT, whose spans the collector gets."""
    settings = {**IMPATIENT, "CROSSMODEL_TRACES_URL": collector.url, "CROSSMODEL_TRACES_RATIO": "1"}
    with extra_gateway(_standing_stack, "impatient-gateway", **settings) as gateway:
        yield gateway


@pytest.fixture(scope="package")
def _fragile_stack(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[LiveStack]:
    keys = {KEYS_VARIABLE: f"{BAD_KEY},{GOOD_KEY}"}
    folder = tmp_path_factory.mktemp("fragile")
    with standing_stack(folder, "fragile", CROSSMODEL_BREAKER_FAILURES="3", **keys) as stack:
        yield stack


@pytest.fixture
def fragile(_fragile_stack: LiveStack, django_db_blocker: DjangoDbBlocker) -> Iterator[LiveStack]:
    """A stack whose breakers open soon."""
    with visit(_fragile_stack, django_db_blocker) as stack:
        yield stack


@pytest.fixture
def alice(stack: LiveStack) -> Tenant:
    """An organization with 10 USD and a key without limits of its own."""
    return stack.make_tenant()
