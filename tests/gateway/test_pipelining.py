"""Requests that come before the one before is answered: what breaks behind a good one takes nothing from it."""

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.http_protocol import HEAD_SECONDS, HttpProtocol

READ_SECONDS = 10.0
GET = b"GET /first HTTP/1.1\r\nhost: here\r\n\r\n"
POST = b"POST /second HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Server:
    """A connection to an application that answers each request with its path once `go_on` is set."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: HttpProtocol
    go_on: asyncio.Event
    asked: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    async def read_rest(self) -> bytes:
        async with asyncio.timeout(READ_SECONDS):
            return await self.reader.read()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(READ_SECONDS):
            while not condition():  # noqa: ASYNC110 -- what is waited for has no event of its own.
                await asyncio.sleep(0.005)


@asynccontextmanager
async def served() -> AsyncIterator[Server]:
    go_on = asyncio.Event()

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        server.asked.append(scope["path"])
        message = await receive()
        while message.get("more_body", False):
            message = await receive()
        leaving = asyncio.ensure_future(receive())
        going = asyncio.ensure_future(go_on.wait())
        await asyncio.wait((leaving, going), return_when=asyncio.FIRST_COMPLETED)
        going.cancel()
        if message["type"] == "http.disconnect" or leaving.done():
            server.left.append(scope["path"])
            return
        text = scope["path"].encode()
        headers = [(b"content-length", b"%d" % len(text))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": text})
        leaving.cancel()

    config = Config(application, lifespan="off")
    config.load()
    protocol = HttpProtocol(config, ServerState(), {})
    ours, theirs = socket.socketpair()
    await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    server = Server(reader, writer, protocol, go_on)
    try:
        yield server
    finally:
        writer.close()


BEHIND = {
    b"400": b"no request\r\n\r\n",
    b"400 ": POST + b"no chunk\r\n",
    b"431": b"GET / HTTP/1.1\r\na: " + b"b" * 70_000,
}


@pytest.mark.parametrize("status", BEHIND, ids=["no request", "no chunk", "a long head"])
async def test_what_breaks_behind_a_whole_request_leaves_it_its_answer(status: bytes) -> None:
    async with served() as server:
        server.writer.write(GET)
        await server.until(lambda: server.asked == ["/first"])
        server.writer.write(BEHIND[status])
        await server.until(lambda: server.protocol._ignores_rest)
        server.go_on.set()
        answers = await server.read_rest()
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"200", status.strip()]
    assert b"/firstHTTP/1.1 4" in answers
    assert (server.asked, server.left) == (["/first"], [])


async def test_who_leaves_with_requests_waiting_has_left_the_first() -> None:
    async with served() as server:
        server.writer.write(GET + GET)
        await server.until(lambda: server.asked == ["/first"])
        server.writer.close()
        server.protocol.transport.resume_reading()  # In its own time it finds out when it writes.
        await server.until(lambda: server.left == ["/first"])
    assert server.asked == ["/first"]


async def test_half_a_head_behind_an_answered_request_is_given_up() -> None:
    async with served() as server:
        server.go_on.set()
        server.writer.write(GET + b"GET /second HTTP/1.1\r\nhos")
        assert b"/first" in await server.reader.readuntil(b"/first")
        server.writer.write(b"t")
        await server.until(lambda: server.protocol.timeout_keep_alive_task is None)
        server.protocol.close_slow(asyncio.get_running_loop().time() + HEAD_SECONDS + 1)
        assert (await server.read_rest()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("target", [b"localhost:443", b"/v1/messages"])
async def test_a_tunnel_is_refused(target: bytes) -> None:
    async with served() as server:
        server.writer.write(b"CONNECT " + target + b" HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await server.read_rest()).startswith(b"HTTP/1.1 400 ")
        assert server.asked == []


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/2.0\r\nhost: here\r\n\r\n",
        b"GET / HTTP/1.2\r\nhost: here\r\n\r\n",
        b"GET / HTTP/0.9\r\nhost: here\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: here\r\nhost: there\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: here\r\nhost: here\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: here\r\nhost: there\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: here, there\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: here/there\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: me@here\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: here\r\nhost: there\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n",
    ],
)
async def test_a_head_that_others_may_read_otherwise_is_refused(head: bytes) -> None:
    """Another version, and a host that is missing, given twice, or none (RFC 9112, 2.3 and 3.2)."""
    async with served() as server:
        server.go_on.set()
        server.writer.write(head + GET)
        answer = await server.read_rest()
        assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"400"]
        assert b'"invalid_http"' in answer
        assert server.asked == []


@pytest.mark.parametrize(
    "head",
    [
        b"GET /first HTTP/1.0\r\n\r\n",
        b"GET /first HTTP/1.0\r\nhost: here\r\n\r\n",
        b"GET /first HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n",
        b"GET /first HTTP/1.1\r\nhost: [::1]:8000\r\nconnection: close\r\n\r\n",
        b"GET /first HTTP/1.1\r\nhost: my_api.example:443\r\nconnection: close\r\n\r\n",
        b"GET http://there/first HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n",
    ],
)
async def test_a_head_that_names_its_host_is_served(head: bytes) -> None:
    async with served() as server:
        server.go_on.set()
        server.writer.write(head)
        assert (await server.read_rest()).startswith(b"HTTP/1.1 200 ")
        assert server.asked == ["/first"]
