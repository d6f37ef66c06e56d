"""HTTP/1.1 by hand on asyncio: the sandbox has to break connections in ways that a web server exists to prevent,
and has to cost next to nothing in benchmarks."""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol, cast

import httptools

MAX_BODY_BYTES = 40 * 1024 * 1024
"""A little above the 32 MiB at which the sandbox answers 413."""
MAX_PIPELINED_REQUESTS = 64
MAX_HEADER_BYTES = 64 * 1024
LINGER_NEVER = struct.pack("ii", 1, 0)


class Request(NamedTuple):
    """One request, read whole."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    """Names in lower case; of repeated ones the last."""
    body: bytes
    keep_alive: bool
    chunked_answers: bool
    """Whether the client speaks HTTP/1.1 and so understands chunks."""


class Handler(Protocol):
    """Answers a request at once and returns None, or returns the task that answers it."""

    def __call__(self, request: Request, connection: "Connection", /) -> "asyncio.Task[None] | None": ...


class Connection(asyncio.Protocol):
    """One client's connection. Requests are answered in their order, one at a time."""

    def __init__(self, handler: Handler, open_connections: "set[Connection]") -> None:
        self._handler = handler
        self._open_connections = open_connections
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.client_left = False
        self._stopping = False
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0

    # What handlers use.

    def write(self, written: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(written)

    async def drained(self) -> None:
        """Wait while the client reads more slowly than we write."""
        if self._writable is not None:
            await self._writable

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Break the connection with a TCP reset, as a crashed peer does."""
        if self._transport is None:
            return
        raw_socket = self._transport.get_extra_info("socket")
        if raw_socket is not None:
            with contextlib.suppress(OSError):
                raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NEVER)
        self._transport.abort()

    def stop(self) -> "asyncio.Task[None] | None":
        """The sandbox is being stopped: what is running is cut off. Returns the task that is ending, to wait for."""
        self._stopping = True
        task = self._task
        if task is not None:
            task.cancel()
        self.close()
        return task

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast(asyncio.Transport, transport)
        self._open_connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.client_left = not self._stopping
        self._open_connections.discard(self)
        self._waiting.clear()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._task is not None:
            self._task.cancel()
        self._transport = None

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            self.close()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._header_bytes = 0
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.lower()] = value
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > MAX_HEADER_BYTES:
            self.close()

    def on_headers_complete(self) -> None:
        if self._headers.get(b"expect", b"").lower() == b"100-continue":
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(body)
        else:
            # Enough is kept to see that it is too large.
            self._body_bytes = MAX_BODY_BYTES

    def on_message_complete(self) -> None:
        path, _, _ = self._url.partition(b"?")
        request = Request(
            self._parser.get_method(),
            path,
            self._headers,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
            self._parser.should_keep_alive(),
            self._parser.get_http_version() != "1.0",
        )
        if self._task is None:
            self._answer(request)
        elif len(self._waiting) < MAX_PIPELINED_REQUESTS:
            self._waiting.append(request)
        else:
            self.close()

    def _answer(self, request: Request) -> None:
        self._task = self._handler(request, self)
        if self._task is not None:
            self._task.add_done_callback(lambda task: self._answered(task, keep_alive=request.keep_alive))
        elif not request.keep_alive:
            self.close()

    def _answered(self, task: "asyncio.Task[None]", *, keep_alive: bool) -> None:
        self._task = None
        if task.cancelled():
            return
        if task.exception() is not None:
            self.close()
            task.result()
        if not keep_alive:
            self.close()
        elif self._waiting:
            self._answer(self._waiting.popleft())


def listener(handler: Handler) -> tuple[Callable[[], Connection], set[Connection]]:
    """A protocol factory for `create_server`, and the set of connections that are open."""
    open_connections: set[Connection] = set()
    return lambda: Connection(handler, open_connections), open_connections
