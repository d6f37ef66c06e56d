"""One durable stack for all faults of a session; a test that left it broken leaves a new one to the next."""

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.faults.stacks import Stacks
from tests.support.durable_stack import DurableStack
from tests.support.live_stack import looking_at


@pytest.fixture(scope="session")
def _stacks(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[Stacks]:
    stacks = Stacks(tmp_path_factory.mktemp("durable"))
    with django_db_blocker.unblock():
        yield stacks
        stacks.drop()


@pytest.fixture
def durable_stack(
    _stacks: Stacks, django_db_blocker: DjangoDbBlocker, request: pytest.FixtureRequest
) -> Iterator[DurableStack]:
    failures = request.session.testsfailed
    with django_db_blocker.unblock():
        stack = _stacks.give()
        with looking_at(stack):
            yield stack
        if request.session.testsfailed > failures:
            _stacks.drop()
