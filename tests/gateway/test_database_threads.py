"""The few threads that ask Postgres for the request path: no organization takes all of them."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from gateway.database import MAX_THREADS_FOR_ONE, DatabaseThreads

GREEDY, OTHER = 1, 2
WAIT_SECONDS = 5.0


@pytest.fixture
def threads() -> Iterator[DatabaseThreads]:
    threads = DatabaseThreads()
    yield threads
    threads.close()


def test_a_crowd_of_one_organization_waits_behind_itself(threads: DatabaseThreads) -> None:
    """A hundred connections of one tenant with idempotency keys let the others' wait for 2.7 s."""
    may_end = threading.Event()
    running: list[int] = []

    def ask(organization_id: int) -> int:
        running.append(organization_id)
        if organization_id == GREEDY:
            assert may_end.wait(WAIT_SECONDS)
        return organization_id

    async def run() -> None:
        crowd = [asyncio.ensure_future(threads.run_for(GREEDY, ask, GREEDY)) for _ in range(50)]
        await asyncio.sleep(0)
        async with asyncio.timeout(WAIT_SECONDS):
            assert await threads.run_for(OTHER, ask, OTHER) == OTHER
        assert running.count(GREEDY) == MAX_THREADS_FOR_ONE
        may_end.set()
        assert await asyncio.gather(*crowd) == [GREEDY] * 50
        assert not threads._shares  # Nothing is kept of who asks for nothing.

    asyncio.run(run())


def test_what_fails_or_is_left_gives_its_turn_back(threads: DatabaseThreads) -> None:
    def fail() -> None:
        raise ValueError("odd")

    async def run() -> None:
        for _ in range(2 * MAX_THREADS_FOR_ONE):
            with pytest.raises(ValueError, match="odd"):
                await threads.run_for(GREEDY, fail)
            left = asyncio.ensure_future(threads.run_for(GREEDY, int))
            await asyncio.sleep(0)
            left.cancel()
        assert await threads.run_for(GREEDY, int) == 0

    asyncio.run(run())
