"""One CrossModel for all tests of clients. Each test makes its own organizations in it, as tenants do."""

from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.support.live_stack import LiveStack, Tenant, standing_stack, visit


@pytest.fixture(scope="package")
def _standing_stack(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[LiveStack]:
    with standing_stack(tmp_path_factory.mktemp("clients"), "clients") as stack:
        yield stack


@pytest.fixture
def stack(_standing_stack: LiveStack, django_db_blocker: DjangoDbBlocker) -> Iterator[LiveStack]:
    with visit(_standing_stack, django_db_blocker) as stack:
        yield stack


@pytest.fixture
def alice(stack: LiveStack) -> Tenant:
    """An organization with 10 USD and a key without limits of its own."""
    return stack.make_tenant()
