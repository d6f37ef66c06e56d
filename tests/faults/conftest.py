"""One durable world for all faults of a session; a test that left it broken leaves a new one to the next."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.support.durable_world import DurableWorld
from tests.support.world import looking_at


class Worlds:
    def __init__(self, folders: pytest.TempPathFactory) -> None:
        self._folders = folders
        self._world: DurableWorld | None = None

    def give(self) -> DurableWorld:
        if self._world is None:
            folder: Path = self._folders.mktemp("durable")
            folder.chmod(0o755)  # Postgres, where root starts it, is another user and must pass.
            self._world = DurableWorld(folder)
            self._world.start()
        return self._world

    def drop(self) -> None:
        if self._world is not None:
            self._world.stop()
            self._world = None


@pytest.fixture(scope="session")
def _worlds(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Worlds]:
    worlds = Worlds(tmp_path_factory)
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
