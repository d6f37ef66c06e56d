"""The lean handler by hand: what it says when messages come in an order that no test client would send them in."""

import asyncio
import json
from collections.abc import MutableMapping
from typing import Any

import pytest
from django.urls import path
from django.urls.resolvers import RegexPattern, URLResolver

from gateway.errors import GatewayError
from gateway.server.handler import GatewayRequest, LeanHandler
from gateway.server.request_body import BodyRoom
from gateway.server.responses import GatewayResponse, RelayResponse, SendChunk

Message = MutableMapping[str, Any]
MAX_BODY_BYTES = 100
KEY_ID = 7


class Views:
    """What the handler serves here, and what happened to it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.room = BodyRoom()
        self.was_cancelled = False
        self.began = asyncio.Event()

    async def echo(self, request: GatewayRequest) -> GatewayResponse:
        await request.receive_body(self.room, KEY_ID)
        content = request.take_body()
        self.bodies.append(content)
        return GatewayResponse(content)

    async def fail(self, request: GatewayRequest) -> GatewayResponse:
        raise ValueError("the secret is 1234")

    async def list(self, request: GatewayRequest) -> GatewayResponse:
        return GatewayResponse(request.GET.get("limit", "").encode())

    async def refuse(self, request: GatewayRequest) -> GatewayResponse:
        raise GatewayError(429, "slow_down", "Slow down.", retry_after_seconds=120)

    async def wait(self, request: GatewayRequest) -> GatewayResponse:
        request.watch.cancel_on_departure()
        self.began.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return GatewayResponse(b"late")

    async def relay(self, request: GatewayRequest) -> GatewayResponse:
        request.watch.cancel_on_departure()

        async def write(send: SendChunk) -> None:
            self.began.set()
            try:
                for number in range(1_000):
                    await send(b"%d\n" % number)
                    await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                self.was_cancelled = True
                raise

        return RelayResponse(write, {"content-type": "text/event-stream"})


@pytest.fixture
def views() -> Views:
    return Views()


@pytest.fixture
def handler(views: Views) -> LeanHandler:
    names = ("echo", "fail", "list", "refuse", "wait", "relay")
    resolver = URLResolver(RegexPattern(r"^/"), [path(f"v1/{name}", getattr(views, name)) for name in names])
    return LeanHandler(resolver, max_body_bytes=MAX_BODY_BYTES)


def scope(name: str, **fields: Any) -> Message:
    return {"type": "http", "method": "POST", "path": f"/v1/{name}", "query_string": b"", "headers": [], **fields}


async def serve(handler: LeanHandler, about: Message, *messages: Message, views: Views | None = None) -> list[Message]:
    """Return what was sent. After `messages`, the client stays; with `views`, it leaves once its view has begun."""
    coming = list(messages)
    sent: list[Message] = []

    async def receive() -> Message:
        if coming:
            return coming.pop(0)
        if views is not None:
            await views.began.wait()
            return {"type": "http.disconnect"}
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(5):
        await handler(about, receive, send)
    return sent


def body(content: bytes = b"", *, more: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


def error_code(sent: list[Message]) -> tuple[int, str]:
    start, content = sent
    headers = dict(start["headers"])
    answer = json.loads(content["body"])
    assert headers[b"request-id"].decode() == answer["request_id"]
    assert int(headers[b"content-length"]) == len(content["body"])
    return start["status"], answer["error"]["code"]


async def test_a_body_in_pieces(handler: LeanHandler, views: Views) -> None:
    sent = await serve(handler, scope("echo"), body(b"ab", more=True), body(b"", more=True), body(b"cd"))
    assert views.bodies == [b"abcd"]
    assert [message.get("body") for message in sent] == [None, b"abcd"]


async def test_a_message_without_a_body_is_an_empty_one(handler: LeanHandler, views: Views) -> None:
    await serve(handler, scope("echo"), {"type": "http.request"})
    assert views.bodies == [b""]


async def test_a_client_that_leaves_while_it_sends_is_not_served(handler: LeanHandler, views: Views) -> None:
    sent = await serve(handler, scope("echo"), body(b"ab", more=True), {"type": "http.disconnect"})
    assert (sent, views.bodies) == ([], [])


async def test_a_body_of_exactly_the_bound_and_one_byte_more(handler: LeanHandler, views: Views) -> None:
    await serve(handler, scope("echo"), body(b"x" * 60, more=True), body(b"x" * 40))
    assert [len(content) for content in views.bodies] == [MAX_BODY_BYTES]
    sent = await serve(handler, scope("echo"), body(b"x" * 60, more=True), body(b"x" * 41, more=True))
    assert error_code(sent) == (413, "request_too_large")


@pytest.mark.parametrize("length", [b"101", b"9" * 30, b"9" * 5_000])
async def test_a_length_over_the_bound_is_refused_unread(handler: LeanHandler, views: Views, length: bytes) -> None:
    sent = await serve(handler, scope("echo", headers=[(b"content-length", length)]))
    assert error_code(sent) == (413, "request_too_large")


async def test_a_length_that_is_too_small_to_be_true_does_not_help(handler: LeanHandler) -> None:
    sent = await serve(handler, scope("echo", headers=[(b"content-length", b"1")]), body(b"x" * 101))
    assert error_code(sent) == (413, "request_too_large")


async def test_a_fault_of_ours_says_nothing_about_it(handler: LeanHandler) -> None:
    sent = await serve(handler, scope("fail"), body())
    assert error_code(sent) == (500, "internal_error")
    assert b"1234" not in sent[1]["body"]


async def test_an_error_carries_its_headers(handler: LeanHandler) -> None:
    sent = await serve(handler, scope("refuse"), body())
    assert error_code(sent) == (429, "slow_down")
    headers = dict(sent[0]["headers"])
    assert (headers[b"retry-after"], headers[b"x-should-retry"]) == (b"120", b"false")


async def test_a_view_is_cancelled_when_the_client_leaves(handler: LeanHandler, views: Views) -> None:
    sent = await serve(handler, scope("wait"), body(), views=views)
    assert (views.was_cancelled, sent) == (True, [])


async def test_a_relay_is_cancelled_when_the_client_leaves(handler: LeanHandler, views: Views) -> None:
    sent = await serve(handler, scope("relay"), body(), views=views)
    assert views.was_cancelled
    assert sent[0]["type"] == "http.response.start"
    assert len(sent) < 100


async def test_a_relay_whose_start_cannot_be_sent_has_begun(handler: LeanHandler, views: Views) -> None:
    """What is billed is decided inside the relay: no failure on the way to the client may come before it."""

    async def receive() -> Message:
        if not views.bodies:
            views.bodies.append(b"")
            return body()
        await asyncio.sleep(60)
        raise AssertionError("nobody waits that long")

    async def send(message: Message) -> None:
        raise OSError("the connection is gone")

    with pytest.raises(OSError, match="gone"):
        await handler(scope("relay"), receive, send)
    assert views.began.is_set()


@pytest.mark.parametrize(
    "header",
    [
        (b"content-type", b"text/plain; charset*=bogus''x"),
        (b"content-type", b"\xff\xfe"),
        (b"cookie", b"\xff=\xfe; ;;="),
        (b"host", b"\xff"),
        (b"x_under_score", b"1"),
        (b"content-type", b";" * 100_000),
    ],
)
async def test_odd_headers(handler: LeanHandler, views: Views, header: tuple[bytes, bytes]) -> None:
    await serve(handler, scope("echo", headers=[header]), body(b"x"))
    assert views.bodies == [b"x"]


async def test_more_parameters_than_anybody_reads_are_the_clients_fault(
    handler: LeanHandler, caplog: pytest.LogCaptureFixture
) -> None:
    sent = await serve(handler, scope("list", query_string=b"&".join(b"a=%d" % each for each in range(1_001))))
    assert error_code(sent) == (400, "bad_request")
    assert not caplog.records
