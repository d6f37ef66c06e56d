"""A client that reads nothing for too long has left. One timer watches a whole stream; one for each chunk cost more."""

import asyncio
from typing import cast

from billing.time_outs import LOOK_AGAIN_SECONDS
from gateway.server.responses import SendChunk


class ClientStalledError(Exception):
    """The client has read nothing for so long that it counts as having left."""


class StalledClientTimer:
    """Sends chunks for the task that made it, which gets ClientStalledError when one is not taken in time."""

    def __init__(self, send: SendChunk, *, stall_seconds: float) -> None:
        self._send = send
        self._stall_seconds = stall_seconds
        self._loop = asyncio.get_running_loop()
        self._task = cast("asyncio.Task[None]", asyncio.current_task())
        self._waiting_since: float | None = None
        self._has_stalled = False
        self._timer = self._loop.call_later(stall_seconds, self._look)

    async def send(self, chunk: bytes) -> None:
        """Send a chunk. Raises ClientStalledError."""
        self._waiting_since = self._loop.time()
        try:
            await self._send(chunk)
        except asyncio.CancelledError:
            if not self._has_stalled:
                raise
            self._task.uncancel()
            raise ClientStalledError from None
        finally:
            self._waiting_since = None

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        waited_seconds = 0.0 if self._waiting_since is None else self._loop.time() - self._waiting_since
        if waited_seconds < self._stall_seconds:
            self._timer = self._loop.call_later(self._stall_seconds - waited_seconds, self._look)
        else:
            self._timer = self._loop.call_later(LOOK_AGAIN_SECONDS, self._give_up, self._waiting_since)

    def _give_up(self, waiting_since: float | None) -> None:
        if self._waiting_since != waiting_since:
            self._look()
            return
        self._has_stalled = True
        self._task.cancel()
