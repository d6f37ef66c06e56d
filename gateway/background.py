"""Work that a gateway process must finish although its client has left."""

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any

DRAINING_SHARE = 2  # One organization may have this part of all that is read without a client.

logger = logging.getLogger(__name__)


class BackgroundWork:
    def __init__(self, *, max_draining: int, drain_seconds: float) -> None:
        self._max_draining = max_draining
        self._drain_seconds = drain_seconds
        self._running: dict[asyncio.Task[None], int] = {}  # With the organization that it is for.
        self._running_of: Counter[int] = Counter()

    def run(self, work: Coroutine[Any, Any, None], *, organization_id: int = 0) -> asyncio.Task[None]:
        """Start the work; it goes on also when whoever started it does not wait for it."""
        task = asyncio.create_task(work)
        self._running[task] = organization_id
        self._running_of[organization_id] += 1
        task.add_done_callback(self._forget)
        return task

    def drain_seconds(self, organization_id: int) -> float:
        """Return how long an upstream may be read without a client: not at all while too many are, of all
        organizations together or of this one.
        """
        most = self._max_draining
        if len(self._running) >= most or self._running_of[organization_id] >= most // DRAINING_SHARE:
            return 0.0
        return self._drain_seconds

    async def finish(self, *, within_seconds: float) -> None:
        """Wait until all of it has ended, or the time is over."""
        if self._running:
            await asyncio.wait(self._running, timeout=within_seconds)

    def _forget(self, task: asyncio.Task[None]) -> None:
        organization_id = self._running.pop(task)
        self._running_of[organization_id] -= 1
        if not self._running_of[organization_id]:
            del self._running_of[organization_id]
        if not task.cancelled() and task.exception() is not None:
            logger.error("Background work failed.", exc_info=task.exception())
