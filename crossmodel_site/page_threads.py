"""The threads that make pages: a few that stay, each with a database connection of its own.

Django makes a thread for each request, and with it a connection that nobody closes. Here a request waits for one of a
fixed number of threads, so pages together never have more connections than that, and the gateway and the worker keep
theirs. A thread is free again when its work is done, also when the client left before: what runs in a thread cannot be
stopped. What a page says is sent from memory, so that a client that reads slowly holds no thread; what is too long for
that holds one for as long as it is read, so only a few may be on their way.

Clients, which are addresses, take turns: whoever asks for a hundred pages at once waits behind itself, and has half of
the threads at most. Where too many wait, the client that waits for most gives way.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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
        self._each = max(1, count // 2)  # Threads of one client at once.
        self._long_answers = Counter[str]()  # Of each client, on their way while a thread is held.
        self._max_long_answers = max(1, count // 4)
        self._busy = Counter[str]()
        self._waiting: dict[str, deque[asyncio.Future[ThreadPoolExecutor]]] = {}  # Whose turn it is comes first.
        self._tell()

    async def run(
        self, application: Application, scope: Scope, receive: Receive, send: Send, *, client: str = ""
    ) -> None:
        """Let the application answer in a thread, then send what it said. Raises TooBusyError: nothing was sent."""
        executor = await self._take(client)
        outbox = Outbox(send, partial(self._begin_long_answer, client))
        try:
            async with asyncio.timeout(MAX_PAGE_SECONDS), ThreadSensitiveContext(executor=executor):
                await application(scope, receive, outbox.send)
        except TimeoutError:
            logger.warning("A page took more than %g s and was cut: %s", MAX_PAGE_SECONDS, scope["path"])
            if not outbox.has_sent:
                raise TooBusyError from None
            return  # Half of it is with the client: the server sees that the rest is missing and closes.
        finally:
            if outbox.has_sent:
                self._end_long_answer(client)
            self._give_back_when_idle(executor, client)
        await outbox.flush()

    async def _take(self, client: str) -> ThreadPoolExecutor:
        if self._free and self._busy[client] < self._each:
            self._busy[client] += 1
            taken = self._free.pop()
            self._tell()
            return taken
        place: asyncio.Future[ThreadPoolExecutor] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, deque()).append(place)
        if sum(map(len, self._waiting.values())) > MAX_WAITING:
            self._let_one_go()
        self._tell()
        executor: ThreadPoolExecutor | None = None
        try:
            async with asyncio.timeout(MAX_WAIT_SECONDS):
                executor = await place
            return executor
        except TimeoutError:
            raise TooBusyError from None
        finally:
            self._forget(place, client)
            self._tell()
            if executor is None and place.done() and not place.cancelled() and place.exception() is None:
                self._give(place.result(), client)  # It came in the moment in which nobody waited any more.

    def _let_one_go(self) -> None:
        """Refuse who came last of the client that waits for most."""
        places = max(self._waiting.values(), key=len)
        last = places.pop()
        if not last.done():
            last.set_exception(TooBusyError())

    def _forget(self, place: "asyncio.Future[ThreadPoolExecutor]", client: str) -> None:
        places = self._waiting.get(client)
        if places is not None:
            if place in places:
                places.remove(place)
            if not places:
                del self._waiting[client]

    def _give_back_when_idle(self, executor: ThreadPoolExecutor, client: str) -> None:
        loop = asyncio.get_running_loop()

        def is_idle() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._give, executor, client)

        executor.submit(is_idle)

    def _give(self, executor: ThreadPoolExecutor, client: str) -> None:
        """Take a thread back from a client, and let those go on who may."""
        self._busy[client] -= 1
        if not self._busy[client]:
            del self._busy[client]
        self._free.append(executor)
        for waiting in list(self._waiting):
            if not self._free:
                break
            places = self._waiting[waiting]
            while places and places[0].done():
                places.popleft()
            if places and self._busy[waiting] < self._each:
                self._busy[waiting] += 1
                places.popleft().set_result(self._free.pop())
                self._waiting[waiting] = self._waiting.pop(waiting)  # To the end: others come first next time.
        self._tell()

    def _begin_long_answer(self, client: str) -> None:
        """Raises TooBusyError where too many are on their way."""
        if self._long_answers[client] or self._long_answers.total() >= self._max_long_answers:
            raise TooBusyError
        self._long_answers[client] += 1

    def _end_long_answer(self, client: str) -> None:
        del self._long_answers[client]

    def _tell(self) -> None:
        """Let Prometheus know how many threads are left."""
        PAGE_THREADS.labels("free").set(len(self._free))
        PAGE_THREADS.labels("busy").set(len(self._executors) - len(self._free))
        PAGES_WAITING.set(sum(map(len, self._waiting.values())))


class Outbox:
    """Keeps the messages of an answer until it is whole; of a longer one the first part, and passes the rest on."""

    def __init__(self, send: Send, begin_long_answer: Callable[[], None]) -> None:
        self._send = send
        self._begin_long_answer = begin_long_answer
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
            self._begin_long_answer()
            self._passes_on = True
            await self.flush()
            return
        await self._send(message)

    async def flush(self) -> None:
        kept, self._kept = self._kept, []
        for message in kept:
            await self._send(message)
