"""What console tests share: three people, and Redis away on demand."""

import pytest
from pytest_django import Settings

from crossmodel_site.embedded.ports import find_free_port
from tests.support.people import People, make_people


@pytest.fixture
def people(db: None) -> People:
    return make_people()


@pytest.fixture
def redis_away(settings: Settings) -> None:
    """Point this process at a port where no Redis listens: as real as one that was killed."""
    settings.REDIS_URL = f"redis://127.0.0.1:{find_free_port()}/0"
