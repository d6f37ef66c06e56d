"""The HTTP of these tests where an ordinary client is too polite: raw connections, and streams event by event."""

import asyncio
import json
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.support.live_stack import HTTP, Tenant, body

READ_SECONDS = 20.0
RECEIVE_BYTES = 64 * 1024
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s: close() sends RST.


@dataclass(frozen=True)
class Event:
    """One event of a stream, with the name that its `event:` line gave; empty when there was none."""

    name: str
    data: dict[str, Any]


def read_events(text: str) -> list[Event]:
    """Return the events of a whole stream; one that the stream did not end is left out."""
    events = []
    for block in text.split("\n\n")[:-1]:
        lines = [line.partition(": ") for line in block.split("\n")]
        name = "".join(value for field, _, value in lines if field == "event")
        data = "\n".join(value for field, _, value in lines if field == "data")
        if data:
            events.append(Event(name, json.loads(data)))
    return events


@dataclass(frozen=True)
class Stream:
    """A stream as read to its end."""

    response: httpx.Response
    text: str
    events: list[Event]

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    @property
    def reply_text(self) -> str:
        deltas = [event.data["delta"] for event in self.events if event.name == "content_block_delta"]
        return "".join(delta.get("text", "") for delta in deltas)

    def only(self, name: str) -> dict[str, Any]:
        """Return the data of the only event of this name."""
        [event] = [event for event in self.events if event.name == name]
        return event.data


def read_stream(base_url: str, tenant: Tenant, text: str = "Hello!", **fields: Any) -> Stream:
    """POST a streamed request and read its answer to the end, however it ends."""
    with HTTP.stream(
        "POST",
        base_url + "/v1/messages",
        headers=tenant.headers,
        json=body(text, stream=True, **fields),
        timeout=READ_SECONDS,
    ) as response:
        received = "".join(response.iter_text())
    return Stream(response, received, read_events(received))


class Connection:
    """One TCP connection, on which a test says exactly the bytes that it wants to."""

    def __init__(self, base_url: str, *, receive_buffer_bytes: int | None = None) -> None:
        parts = urlsplit(base_url)
        self.socket = socket.socket()
        if receive_buffer_bytes is not None:  # Before connecting: the window is agreed on then.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self.socket.settimeout(READ_SECONDS)
        self.socket.connect((parts.hostname, parts.port))
        self.received = b""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(
        self, method: str, path: str, headers: Iterable[tuple[str, str | bytes]] = (), content: bytes | None = None
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1".encode(), b"host: localhost"]
        lines += [name.encode() + b": " + (v if isinstance(v, bytes) else v.encode()) for name, v in headers]
        if content is not None:
            lines.append(b"content-length: %d" % len(content))
        self.socket.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + (content or b""))

    def send_message(self, tenant: Tenant, text: str = "Hello!", **fields: Any) -> None:
        """POST /v1/messages."""
        headers = [*tenant.headers.items(), ("content-type", "application/json")]
        self.send("POST", "/v1/messages", headers, json.dumps(body(text, **fields)).encode())

    def receive(self) -> bytes:
        """Return all that came so far, once some more has come."""
        part = self.socket.recv(RECEIVE_BYTES)
        assert part, f"closed: {self.received[-500:]!r}"
        self.received += part
        return self.received

    def read_until(self, mark: bytes) -> bytes:
        """Return all that came so far, once `mark` is in it."""
        while mark not in self.received:
            part = self.socket.recv(RECEIVE_BYTES)
            assert part, f"closed before {mark!r} came: {self.received[-500:]!r}"
            self.received += part
        return self.received

    def read_rest(self) -> bytes:
        """Return all that comes until the other side closes or resets the connection."""
        try:
            while part := self.socket.recv(RECEIVE_BYTES):
                self.received += part
        except ConnectionResetError:
            pass
        return self.received

    def read_answer(self) -> httpx.Response:
        """Return an answer that has a content-length."""
        head = self.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")[0]
        status_line, *lines = head.split(b"\r\n")
        headers = [(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
        length = int(dict(headers).get(b"content-length", b"0"))
        while len(self.received) < len(head) + 4 + length:
            part = self.socket.recv(RECEIVE_BYTES)
            assert part, "closed in the middle of the body"
            self.received += part
        content = self.received[len(head) + 4 : len(head) + 4 + length]
        return httpx.Response(int(status_line.split()[1]), headers=headers, content=content)

    def reset(self) -> None:
        """Leave as a process that was killed does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
        self.socket.close()


def post_at_once(base_url: str, calls: Iterable[tuple[Tenant, str]], **fields: Any) -> list[httpx.Response]:
    """POST one request for each tenant and text, all at the same time, and return the answers in their order."""

    async def post_all() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=base_url, timeout=READ_SECONDS, limits=limits) as client:
            posts = [
                client.post("/v1/messages", headers=tenant.headers, json=body(text, **fields)) for tenant, text in calls
            ]
            return await asyncio.gather(*posts)

    return asyncio.run(post_all())
