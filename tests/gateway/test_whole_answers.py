"""A whole answer leaves in one write, with what uvicorn would have added; an answer that is not whole does not."""

import asyncio
import socket
from typing import Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from gateway.http_protocol import MAX_WHOLE_BYTES, HttpProtocol, write_whole
from gateway.server.handler import send_response
from gateway.server.responses import GatewayResponse

READ_SECONDS = 10.0
LONGEST_KEPT_BY_PROXIES = 60.0  # nginx, Envoy, HAProxy and the load balancers of clouds, unless told otherwise.
BODY = b'{"id": 1}'
LENGTH = (b"content-length", b"%d" % len(BODY))
LAST = b"GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n"


class Counted:
    """The transport of one answer, which counts what is written to it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.writes = 0

    def write(self, data: bytes) -> None:
        self.writes += 1
        self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


async def ask(request: bytes, answer: Any) -> bytes:
    """Return what a client reads until the connection ends. `answer` is called with ASGI's `send`."""

    async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await answer(send)

    config = Config(application, lifespan="off")
    config.load()
    ours, theirs = socket.socketpair()
    await asyncio.get_running_loop().create_connection(lambda: HttpProtocol(config, ServerState(), {}), sock=ours)
    reader, writer = await asyncio.open_connection(sock=theirs)
    try:
        writer.write(request)
        async with asyncio.timeout(READ_SECONDS):
            return await reader.read()
    finally:
        writer.close()


async def test_an_answer_of_the_gateway_is_one_write() -> None:
    counted: list[Counted] = []

    async def answer(send: Any) -> None:
        counted.append(Counted(send.__self__.transport))
        send.__self__.transport = counted[0]
        await send_response(send, GatewayResponse(BODY, headers={"retry-after": "1"}), "0" * 32, [])

    head, _, body = (await ask(LAST, answer)).partition(b"\r\n\r\n")
    assert body == BODY
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert head.count(b"connection: close") == 1
    assert b"retry-after: 1\r\n" in head
    assert counted[0].writes == 1


async def test_the_connection_goes_on_after_it() -> None:
    async def answer(send: Any) -> None:
        assert write_whole(send, 200, [LENGTH], BODY)

    answers = await ask(LAST.replace(b"connection: close\r\n", b"") * 2 + LAST, answer)
    assert answers.count(BODY) == 3
    assert answers.count(b"connection: close") == 1


async def test_a_connection_outlives_those_that_proxies_keep() -> None:
    config = Config(lambda: None, lifespan="off")
    config.load()
    assert HttpProtocol(config, ServerState(), {}).timeout_keep_alive > LONGEST_KEPT_BY_PROXIES


async def test_a_connection_that_is_told_to_close_does() -> None:
    async def answer(send: Any) -> None:
        assert write_whole(send, 413, [LENGTH, (b"connection", b"close")], BODY)

    answers = await ask(LAST.replace(b"connection: close\r\n", b"") * 2, answer)
    assert answers.startswith(b"HTTP/1.1 413 ")
    assert (answers.count(BODY), answers.count(b"connection: close")) == (1, 1)


async def test_an_answer_without_a_body_is_for_uvicorn() -> None:
    async def answer(send: Any) -> None:
        await send_response(send, GatewayResponse(BODY), "0" * 32, [])

    head, _, body = (await ask(LAST.replace(b"GET", b"HEAD"), answer)).partition(b"\r\n\r\n")
    assert LENGTH[1] in head
    assert body == b""


async def test_a_long_body_is_not_copied_behind_its_head() -> None:
    body = b"a" * (MAX_WHOLE_BYTES + 1)

    async def answer(send: Any) -> None:
        assert not write_whole(send, 200, [(b"content-length", b"%d" % len(body))], body)
        await send_response(send, GatewayResponse(body), "0" * 32, [])

    assert (await ask(LAST, answer)).endswith(b"\r\n\r\n" + body)


@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\x00"])
async def test_no_header_writes_another_one(value: bytes) -> None:
    refused: list[str] = []

    async def answer(send: Any) -> None:
        with pytest.raises(ValueError, match="line break") as error:
            write_whole(send, 200, [LENGTH, (b"x", value)], BODY)
        refused.append(str(error.value))
        assert write_whole(send, 200, [LENGTH], BODY)

    assert (await ask(LAST, answer)).endswith(b"\r\n\r\n" + BODY)
    assert refused


async def test_a_server_that_is_not_ours_sends_it_by_asgi() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message["type"])

    assert not write_whole(send, 200, [LENGTH], BODY)
    await send_response(send, GatewayResponse(BODY), "0" * 32, [])
    assert sent == ["http.response.start", "http.response.body"]
