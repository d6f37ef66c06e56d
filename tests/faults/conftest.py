"""One durable world for all faults of a session; a test that left it broken leaves a new one to the next."""

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.faults.worlds import Worlds
from tests.support.durable_world import DurableWorld
from tests.support.world import looking_at


@pytest.fixture(scope="session")
def _worlds(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Worlds]:
    worlds = Worlds(tmp_path_factory.mktemp("durable"))
    with django_db_blocker.unblock():
        yield worlds
        worlds.drop()


@pytest.fixture
def durable_world(
    _worlds: Worlds, django_db_blocker: DjangoDbBlocker, request: pytest.FixtureRequest
) -> Iterator[DurableWorld]:
    failures = request.session.testsfailed
    with django_db_blocker.unblock():
        world = _worlds.give()
        with looking_at(world):
            yield world
        if request.session.testsfailed > failures:
            _worlds.drop()
