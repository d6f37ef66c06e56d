"""One sandbox for all tests of this folder, cleared before each, and clients that speak to it over real HTTP."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from sandbox.journal import JournalRecord
from tests.sandbox.conversation import KEY, VERSION
from tests.support.sandbox_process import SandboxServer


@pytest.fixture(scope="session")
def running_sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxServer]:
    journal: Path = tmp_path_factory.mktemp("sandbox") / "journal.jsonl"
    with SandboxServer(journal=journal) as sandbox:
        yield sandbox


@pytest.fixture
def sandbox(running_sandbox: SandboxServer) -> SandboxServer:
    running_sandbox.clear()
    return running_sandbox


@pytest.fixture
async def client(sandbox: SandboxServer) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"x-api-key": KEY, "anthropic-version": VERSION}
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers, timeout=10) as client:
        yield client


@pytest.fixture
def last_record(sandbox: SandboxServer) -> "LastRecord":
    return LastRecord(sandbox)


ENDED_SECONDS = 3.0


class LastRecord:
    """Reads the newest record of the journal when called."""

    def __init__(self, sandbox: SandboxServer) -> None:
        self._sandbox = sandbox

    def __call__(self) -> JournalRecord:
        return self._sandbox.journal()[-1]

    def ended(self) -> JournalRecord:
        """Wait until the outcome is known; the sandbox is a process of its own, so waiting here holds nothing up."""
        deadline = time.monotonic() + ENDED_SECONDS
        while self().delivered == "started" and time.monotonic() < deadline:
            time.sleep(0.01)
        return self()
