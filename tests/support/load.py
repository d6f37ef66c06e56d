"""Clients under which things break: many at once, each sending one request after another, and what each of them saw.

A plain HTTP client on a socket of its own per request: it tells a response that arrived whole from one that did not,
and it can reset its connection or read slowly, which clients made for comfort hide.
"""

import asyncio
import contextlib
import json
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from billing.request_id import parse_request_id

CLIENTS = 20
REQUEST_SECONDS = 20.0  # A client gives up then; what it saw by then counts.
STOP_SECONDS = 30.0
PAUSE_AFTER_REFUSAL_SECONDS = 0.05
READ_BYTES = 16 * 1024
SLOW_READ_BYTES = 256
SLOW_READ_PAUSE_SECONDS = 0.02
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 seconds: close() sends RST.
LAST_EVENT = re.compile(rb"event: message_stop\ndata: [^\n]*\n\n")


@dataclass(frozen=True, slots=True)
class Order:
    """One request to send. `leave_after` seconds the client resets its connection; `is_slow` reads drop by drop.

    An order with an idempotency key is sent twice, the second time as soon as the first is answered or lost; where it
    has another body, a third time with that.
    """

    secret: str
    body: dict[str, Any]
    leave_after: float | None = None
    is_slow: bool = False
    idempotency_key: str = ""
    other_body: dict[str, Any] | None = None


@dataclass(slots=True)
class Answer:
    """What a client saw of one request. `status` is 0 where no response began; times are of the tests' own clock.

    `body_bytes` and `max_tokens` are what was sent: what the gateway reserves is made from them.
    """

    secret: str
    is_streamed: bool
    began_at: float
    body_bytes: int = 0
    max_tokens: int = 0
    ended_at: float = 0.0
    status: int = 0
    request_id: UUID | None = None
    content: bytes = b""
    is_whole: bool = False
    idempotency_key: str = ""
    is_replayed: bool = False
    has_other_body: bool = False

    @property
    def is_complete(self) -> bool:
        """True when the client has the whole reply and no error. The last event ends a stream, not its last chunk."""
        if self.status != 200:
            return False
        return LAST_EVENT.search(self.content) is not None if self.is_streamed else self.is_whole

    @property
    def served_by(self) -> UUID | None:
        """The request whose reply this is: an earlier one, where it was repeated under an idempotency key."""
        if not self.is_replayed or not self.is_complete:
            return self.request_id
        return parse_request_id(json.loads(self.content)["id"])

    @property
    def error_code(self) -> str:
        if self.status in (0, 200):
            return ""
        with contextlib.suppress(ValueError, KeyError, TypeError):
            return str(json.loads(self.content)["error"]["code"])
        return ""

    @property
    def usage(self) -> dict[str, int]:
        """The counts that the client was told last."""
        if not self.is_streamed:
            return dict(json.loads(self.content)["usage"])
        found: dict[str, int] = {}
        for line in self.content.split(b"\n"):
            if line.startswith(b"data: ") and b'"message_delta"' in line:
                found = json.loads(line[6:]).get("usage", found)
        return found


OrderMaker = Callable[[random.Random], Order]


@dataclass
class Load:
    """Clients in a thread of their own, from start() to stop()."""

    base_url: str
    make_order: OrderMaker
    seed: int
    clients: int = CLIENTS
    answers: list[Answer] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load", daemon=True)
        self._thread.start()

    def stop(self) -> Sequence[Answer]:
        """Let running requests end, and return what was seen."""
        self._stopping.set()
        assert self._thread is not None
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            raise RuntimeError("The clients did not stop.")
        return self.answers

    def wait_for_answers(self, count: int, *, seconds: float = STOP_SECONDS) -> None:
        """Return once `count` more replies have arrived whole than there are now."""
        wanted = self._complete_count() + count
        ends_at = time.monotonic() + seconds
        while self._complete_count() < wanted:
            if time.monotonic() > ends_at:
                raise AssertionError(f"{count} more replies did not arrive within {seconds:g} s.")
            time.sleep(0.02)

    def _complete_count(self) -> int:
        return sum(answer.is_complete for answer in list(self.answers))

    async def _run(self) -> None:
        await asyncio.gather(*(self._act_as_client(random.Random(f"{self.seed}/{n}")) for n in range(self.clients)))

    async def _act_as_client(self, chance: random.Random) -> None:
        while not self._stopping.is_set():
            order = self.make_order(chance)
            answer = await send(self.base_url, order)
            self.answers.append(answer)
            if order.idempotency_key:
                self.answers.append(await send(self.base_url, order))
            if order.other_body is not None:
                other = await send(self.base_url, replace(order, body=order.other_body))
                other.has_other_body = True
                self.answers.append(other)
            if not answer.is_complete:
                await asyncio.sleep(PAUSE_AFTER_REFUSAL_SECONDS * (0.5 + chance.random()))


async def send(base_url: str, order: Order) -> Answer:
    """Send one request and return what was seen of its response, however it ended."""
    answer = Answer(order.secret, bool(order.body.get("stream")), time.time(), idempotency_key=order.idempotency_key)
    with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
        async with asyncio.timeout(REQUEST_SECONDS if order.leave_after is None else order.leave_after):
            await _exchange(base_url, order, answer)
    answer.ended_at = time.time()
    return answer


async def _exchange(base_url: str, order: Order, answer: Answer) -> None:
    address = urlsplit(base_url)
    limit = 1024 if order.is_slow else 2**16
    reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=limit)
    opened: socket.socket = writer.get_extra_info("socket")
    if order.leave_after is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    try:
        content = json.dumps(order.body).encode()
        answer.body_bytes, answer.max_tokens = len(content), order.body["max_tokens"]
        extra = b"idempotency-key: %b\r\n" % order.idempotency_key.encode() if order.idempotency_key else b""
        writer.write(
            b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n"
            b"anthropic-version: 2023-06-01\r\nx-api-key: %b\r\n%bcontent-length: %d\r\n\r\n"
            % (order.secret.encode(), extra, len(content))
            + content
        )
        headers = await _read_head(reader, answer)
        if headers.get("transfer-encoding") == "chunked":
            await _read_chunks(reader, order, answer)
        else:
            answer.content = await reader.readexactly(int(headers["content-length"]))
        answer.is_whole = True
    finally:
        writer.close()


async def _read_head(reader: asyncio.StreamReader, answer: Answer) -> dict[str, str]:
    status_line = await reader.readline()
    if not status_line.endswith(b"\n"):
        raise EOFError
    status = int(status_line.split()[1])
    headers: dict[str, str] = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.lower()] = value.strip()
    answer.request_id = parse_request_id(headers.get("request-id", ""))
    answer.is_replayed = "idempotent-replayed" in headers
    answer.status = status
    return headers


async def _read_chunks(reader: asyncio.StreamReader, order: Order, answer: Answer) -> None:
    parts = []
    while True:
        size = int((await reader.readline()).strip() or b"-1", 16)
        if size < 0:
            raise EOFError
        left = size
        while left:
            part = await reader.read(min(left, SLOW_READ_BYTES if order.is_slow else READ_BYTES))
            if not part:
                raise EOFError
            left -= len(part)
            parts.append(part)
            answer.content = b"".join(parts)
            if order.is_slow:
                await asyncio.sleep(SLOW_READ_PAUSE_SECONDS)
        await reader.readline()
        if not size:
            return
