"""Looks at a store from beside the event loop, for as long as somebody waits for what it says."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


async def look_in_time(thread: ThreadPoolExecutor, look: Callable[[], T], *, seconds: float, otherwise: T) -> T:
    """Return what a look from this thread finds, or `otherwise` where it takes longer; it goes on all the same."""
    try:
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().run_in_executor(thread, look)
    except TimeoutError:
        return otherwise
