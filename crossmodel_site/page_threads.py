"""The threads that make pages: a few that stay, each with a database connection of its own.

Django makes a thread for each request, and with it a connection that nobody closes. Here a request waits for one of a
fixed number of threads, so pages together never have more connections than that, and the gateway and the worker keep
theirs. A thread is free again when its work is done, also when the client left before: what runs in a thread cannot be
stopped. What a page says is sent from memory, so that a client that reads slowly holds no thread.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext

from gateway.metrics import PAGE_THREADS, PAGES_WAITING

MAX_WAITING = 200
MAX_WAIT_SECONDS = 10.0
MAX_KEPT_BYTES = 4 * 1024 * 1024  # Of one answer; what is longer goes out as it is made.
MAX_PAGE_SECONDS = 60.0  # Until a page that is sent as it is made must be with its client.

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)


class TooBusyError(Exception):
    """No thread became free in time, too many requests wait for one already, or the page took too long to make."""


class PageThreads:
    """There is no `async with`: a thread is given back when it is free, which may be later than its request ends."""

    def __init__(self, count: int) -> None:
        self._executors = [ThreadPoolExecutor(1, thread_name_prefix=f"page-{number}") for number in range(count)]
        self._free = list(self._executors)
        self._waiting: list[asyncio.Future[ThreadPoolExecutor]] = []
        self._tell()

    async def run(self, application: Application, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer in a thread, then send what it said. Raises TooBusyError before it is called."""
        executor = await self._take()
        outbox = Outbox(send)
        try:
            async with asyncio.timeout(MAX_PAGE_SECONDS), ThreadSensitiveContext(executor=executor):
                await application(scope, receive, outbox.send)
        except TimeoutError:
            logger.warning("A page took more than %g s and was cut: %s", MAX_PAGE_SECONDS, scope["path"])
            if not outbox.has_sent:
                raise TooBusyError from None
            return  # Half of it is with the client: the server sees that the rest is missing and closes.
        finally:
            self._give_back_when_idle(executor)
        await outbox.flush()

    async def _take(self) -> ThreadPoolExecutor:
        if self._free:
            executor = self._free.pop()
            self._tell()
            return executor
        if len(self._waiting) >= MAX_WAITING:
            raise TooBusyError
        place: asyncio.Future[ThreadPoolExecutor] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        self._tell()
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                return await place
        except TimeoutError:
            raise TooBusyError from None
        finally:
            if place in self._waiting:
                self._waiting.remove(place)
            self._tell()
            if place.done() and not place.cancelled() and asyncio.current_task().cancelling():  # type: ignore[union-attr]
                self._give(place.result())

    def _give_back_when_idle(self, executor: ThreadPoolExecutor) -> None:
        loop = asyncio.get_running_loop()

        def is_idle() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._give, executor)

        executor.submit(is_idle)

    def _give(self, executor: ThreadPoolExecutor) -> None:
        while self._waiting:
            place = self._waiting.pop(0)
            if not place.done():
                place.set_result(executor)
                return
        self._free.append(executor)
        self._tell()

    def _tell(self) -> None:
        """Let Prometheus know how many threads are left."""
        PAGE_THREADS.labels("free").set(len(self._free))
        PAGE_THREADS.labels("busy").set(len(self._executors) - len(self._free))
        PAGES_WAITING.set(len(self._waiting))


class Outbox:
    """Keeps the messages of an answer until it is whole; of a longer one the first part, and passes the rest on."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._kept: list[Message] = []
        self._kept_bytes = 0
        self._passes_on = False

    @property
    def has_sent(self) -> bool:
        return self._passes_on

    async def send(self, message: Message) -> None:
        if not self._passes_on:
            self._kept.append(message)
            self._kept_bytes += len(message.get("body", b""))
            if self._kept_bytes <= MAX_KEPT_BYTES:
                return
            self._passes_on = True
            await self.flush()
            return
        await self._send(message)

    async def flush(self) -> None:
        kept, self._kept = self._kept, []
        for message in kept:
            await self._send(message)
