"""What a gateway process does now and then goes on for as long as it runs."""

import asyncio

import pytest

from gateway.runtime import repeat


async def test_a_fault_in_what_is_repeated_ends_it_not(caplog: pytest.LogCaptureFixture) -> None:
    done = asyncio.Event()
    results: list[Exception | None] = [ValueError("a row that nobody can read"), OSError("no space left"), None]

    async def refresh() -> None:
        result = results.pop(0)
        if result is not None:
            raise result
        done.set()

    task = asyncio.create_task(repeat(0.0, refresh))
    async with asyncio.timeout(10):
        await done.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.message for record in caplog.records] == ["refresh failed; it is tried again."] * 2
