"""One HTTP/1.1 connection to an upstream: one call at a time, and its answer as it comes.

Written on asyncio's protocols and httptools' parser, which reads requests in uvicorn. Client libraries cost three times
as much for each call or more (docs/speed.md), and the fastest of them cannot take back a call whose answer has not
begun. Waiting may be cancelled or time out, and be taken up again: nothing is lost by it.
"""

import asyncio
from functools import partial
from typing import cast

import httptools
import httpx

from billing.time_outs import LOOK_AGAIN_SECONDS

# Past this many bytes that nobody has taken, reading stops until somebody does: a slow client holds its upstream up.
MAX_BUFFERED_BYTES = 64 * 1024
MAX_HEAD_BYTES = 256 * 1024
MAX_FRAMING_BYTES = 64 * 1024  # Of an answer between two parts of its body: chunk extensions, trailers.
MAX_INTERIM_ANSWERS = 20  # 100 Continue, 103 Early Hints: a server that says no more than this says nothing.
STATUSES = range(100, 600)  # What is no status by RFC 9110, 15, is no answer.
MAX_JOINED_BYTES = 64 * 1024  # A larger body is not copied to be sent together with its head.

NO_ANSWER = "The connection was closed before the answer began."
CUT_SHORT = "The connection was closed before the answer was complete."


class HttpConnection(asyncio.Protocol):
    """Made by the pool. After `send()`: `receive_head()`, then `next_chunk()` until None, then back to the pool."""

    __slots__ = (
        "_buffered_bytes",
        "_chunks",
        "_deadline",
        "_failure",
        "_framing_bytes",
        "_has_head",
        "_head_bytes",
        "_interim_answers",
        "_is_complete",
        "_is_delimited",
        "_is_interim",
        "_is_paused",
        "_keeps_alive",
        "_loop",
        "_parser",
        "_timer",
        "_transport",
        "_waiter",
        "headers",
        "idle_since",
        "is_open",
        "status",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.is_open = False
        self.idle_since = 0.0
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []
        self._buffered_bytes = 0
        self._head_bytes = 0
        self._interim_answers = 0
        self._framing_bytes = 0
        self._failure: httpx.TransportError | None = None
        self._has_head = False
        self._is_interim = False
        self._is_delimited = False
        self._is_complete = False
        self._is_paused = False
        self._keeps_alive = False

    # --- a call ------------------------------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes) -> None:
        """Write a request. Whatever goes wrong is said by who waits for the answer."""
        self._begin()
        self._parser = httptools.HttpResponseParser(self)
        if not self.is_open:
            self._failure = httpx.ReadError(NO_ANSWER)
            return
        try:
            if len(body) < MAX_JOINED_BYTES:
                self._transport.write(head + body)
            else:
                self._transport.writelines((head, body))
        except RuntimeError:  # uvloop: it was closed a moment ago, and that is still to be told.
            self._failure = httpx.ReadError(NO_ANSWER)

    async def receive_head(self, *, timeout_seconds: float) -> None:
        """Return once `status` and `headers` are here. Raises httpx.TransportError."""
        deadline = self._loop.time() + timeout_seconds
        while not self._has_head:
            await self._wait(deadline)

    async def next_chunk(self, *, timeout_seconds: float) -> bytes | None:
        """Return what has come of the body since the last call, None at its end. Raises httpx.TransportError."""
        deadline = self._loop.time() + timeout_seconds
        while not self._chunks:
            if self._is_complete:
                return None
            await self._wait(deadline)
        chunks, self._chunks = self._chunks, []
        self._buffered_bytes = 0
        if self._is_paused:
            self._is_paused = False
            self._transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def interrupt(self, error: httpx.TransportError) -> None:
        """Let whoever waits, or waits next, get this error."""
        self._failure = error
        self._wake()

    def end_call(self) -> bool:
        """Forget the call. Returns whether the connection can serve another; otherwise it is closed at once."""
        self._parser = None
        if self.is_open and self._is_complete and self._keeps_alive and not self._transport.get_write_buffer_size():
            return True
        self.close()
        return False

    def close(self) -> None:
        """Close without a word: what was not written is not worth writing."""
        self.is_open = False
        self._stop_timer()
        self._transport.abort()

    # --- what the event loop tells -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self.close()  # Nobody asked: whatever this is, the next answer must not be mistaken for it.
            return
        had_head, buffered = self._has_head, self._buffered_bytes
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail(httpx.RemoteProtocolError("The upstream asks for another protocol."))
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(f"The upstream does not speak HTTP: {error}"))
        if not self._has_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(
                    httpx.RemoteProtocolError(f"The headers of the answer are larger than {MAX_HEAD_BYTES} bytes.")
                )
            return
        if had_head and self._buffered_bytes == buffered and not self._is_complete:
            self._framing_bytes += len(data)
            if self._framing_bytes > MAX_FRAMING_BYTES:
                self._fail(httpx.RemoteProtocolError("The trailers or chunk extensions of the answer are too long."))
                self.close()
        if self._buffered_bytes > MAX_BUFFERED_BYTES and not self._is_paused and not self._is_complete:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._stop_timer()
        if self._parser is None or self._is_complete:
            return
        if self._has_head and not self._is_delimited and exc is None:
            self._is_complete = True  # An answer without a length is over when the connection is.
            self._wake()
        else:
            self._fail(httpx.ReadError(CUT_SHORT if self._has_head else NO_ANSWER))

    # --- what the parser tells ---------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._is_complete:
            raise ValueError("more than one answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            return  # A trailer is no header (RFC 9110, 6.5.1), and says nothing that we want to know.
        name = name.lower()
        self.headers.append((name, value))
        if name == b"content-length" or (name == b"transfer-encoding" and b"chunked" in value.lower()):
            self._is_delimited = True

    def on_headers_complete(self) -> None:
        parser = cast(httptools.HttpResponseParser, self._parser)
        self.status = parser.get_status_code()
        if self.status not in STATUSES:
            raise ValueError(f"{self.status:03d} is no status")
        if self.status < 200:
            self._is_interim = True  # 100 Continue and 103 Early Hints announce the answer.
            self._interim_answers += 1
            if self._interim_answers > MAX_INTERIM_ANSWERS:
                raise ValueError(f"more than {MAX_INTERIM_ANSWERS} answers that only announce one")
            self.headers = []
            self._is_delimited = False
        else:
            self._has_head = True
            self._keeps_alive = parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        self._framing_bytes = 0
        self._chunks.append(body)
        self._buffered_bytes += len(body)

    def on_message_complete(self) -> None:
        if self._is_interim:
            self._is_interim = False
        else:
            self._is_complete = True

    # --- waiting -----------------------------------------------------------------------------------------------------

    async def _wait(self, deadline: float) -> None:
        """Return when something has come. One timer serves all waits of a call: it looks at the latest deadline."""
        if self._failure is not None:
            raise self._failure
        self._deadline = deadline
        if self._timer is None or self._timer.when() > deadline:
            self._set_timer()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        self._stop_timer()
        self._timer = self._loop.call_at(self._deadline, self._look_at_clock)

    def _look_at_clock(self, *, has_looked: bool = False) -> None:
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        elif has_looked:
            self._waiter.set_exception(httpx.ReadTimeout("It is silent."))
        else:
            self._timer = self._loop.call_later(LOOK_AGAIN_SECONDS, partial(self._look_at_clock, has_looked=True))

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: httpx.TransportError) -> None:
        """Note the end of the call. What came before it can still be read; what follows a whole answer says only
        that the connection cannot be used again."""
        self._keeps_alive = False
        if self._is_complete:
            return
        self._failure = error
        self._wake()
