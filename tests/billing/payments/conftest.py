"""The sandbox payment provider in a process of its own, without webhooks: what tests want to hear, they ask for."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from tests.support.payment_sandbox import SECRET, PaymentSandbox


@pytest.fixture(scope="module")
def sandbox_process() -> Iterator[PaymentSandbox]:
    with PaymentSandbox() as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(sandbox_process: PaymentSandbox, settings: Settings) -> PaymentSandbox:
    settings.PAYMENT_PROVIDER = "sandbox"
    settings.PAYMENT_SANDBOX_URL = sandbox_process.url
    settings.PAYMENT_SANDBOX_SECRET = SECRET
    sandbox_process.control(down=False)
    return sandbox_process
