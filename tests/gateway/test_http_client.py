"""The client that calls upstreams, against a server that says any bytes: what is sent, answers, and waiting."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from billing.time_outs import LOOK_AGAIN_SECONDS
from gateway.http import connection
from gateway.http.client import UpstreamClient
from gateway.http.errors import UpstreamBrokenError, UpstreamTimeoutError, UpstreamTooLargeError
from tests.gateway.raw_server import CHUNKED, CHUNKED_HEAD, PATIENT_SECONDS, WHOLE, Conversation, fetch, serving

SHORT_SECONDS, STILL_SECONDS = 1.0, 1.2


@pytest.fixture
async def client() -> AsyncIterator[UpstreamClient]:
    client = UpstreamClient(connect_seconds=PATIENT_SECONDS)
    yield client
    await client.aclose()


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_what_is_sent(client: UpstreamClient) -> None:
    async with serving(WHOLE) as server:
        assert await fetch(client, server.url + "?beta=true") == b"hello"
    [(head, body)] = server.requests
    host = server.url.split("/")[2].encode()
    lines = [b"POST /v1/messages?beta=true HTTP/1.1", b"host: " + host, b"content-length: 2", b"x-a: 1", b"", b""]
    assert (head.split(b"\r\n"), body) == (lines, b"{}")


async def test_a_connection_serves_one_call_after_another(client: UpstreamClient) -> None:
    async with serving(WHOLE) as server:
        assert [await fetch(client, server.url) for _ in range(3)] == [b"hello"] * 3
        assert (len(server.conversations), len(server.requests)) == (1, 3)
        await asyncio.gather(*(fetch(client, server.url) for _ in range(3)))
        assert len(server.conversations) == 3


@pytest.mark.parametrize("answer", [WHOLE, CHUNKED])
async def test_an_answer_may_be_cut_anywhere(client: UpstreamClient, answer: bytes) -> None:
    cuts = iter(range(1, len(answer)))

    async def say_in_two(conversation: Conversation) -> None:
        cut = next(cuts)
        await conversation.say(answer[:cut])
        await asyncio.sleep(0.001)
        await conversation.say(answer[cut:])

    async with serving(say_in_two) as server:
        for _ in range(1, len(answer)):
            assert await fetch(client, server.url) == b"hello"
        assert len(server.conversations) == 1


@pytest.mark.parametrize("interim", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"])
async def test_an_answer_may_be_announced(client: UpstreamClient, interim: bytes) -> None:
    async with serving(interim + interim + WHOLE) as server:
        response = await client.post(server.url, headers={}, body=b"", timeout_seconds=PATIENT_SECONDS)
        assert (response.status, dict(response.headers)) == (
            200,
            {"content-type": "text/plain", "content-length": "5"},
        )
        await response.aclose()


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_an_answer_without_a_length_ends_with_its_connection(client: UpstreamClient, version: bytes) -> None:
    async def say_and_close(conversation: Conversation) -> None:
        await conversation.say(b"HTTP/" + version + b" 200 OK\r\n\r\nhel")
        await conversation.say(b"lo")
        conversation.writer.close()

    async with serving(say_and_close) as server:
        assert [await fetch(client, server.url) for _ in range(2)] == [b"hello"] * 2
        assert len(server.conversations) == 2


async def test_an_answer_without_a_body(client: UpstreamClient) -> None:
    async with serving(b"HTTP/1.1 204 No Content\r\n\r\n") as server:
        assert [await fetch(client, server.url) for _ in range(2)] == [b""] * 2


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "before the answer began"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "before the answer began"),
        (WHOLE[:-1], "before the answer was complete"),
        (CHUNKED[:-2], "before the answer was complete"),
        (CHUNKED_HEAD + b"zz\r\nhello\r\n", "does not speak HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n", "another protocol"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello", "does not speak HTTP"),
        (b"HTTP/1.1 000 OK\r\ncontent-length: 0\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 600 OK\r\ncontent-length: 5\r\n\r\nhello", "does not speak HTTP"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * (connection.MAX_INTERIM_ANSWERS + 1), "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"x" * (connection.MAX_HEAD_BYTES + 1), "headers of the answer are larger"),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello", "compressed"),
    ],
)
async def test_what_is_no_answer(client: UpstreamClient, answer: bytes, reason: str) -> None:
    async def say_and_close(conversation: Conversation) -> None:
        await conversation.say(answer)
        conversation.writer.close()

    async with serving(say_and_close) as server:
        with pytest.raises(UpstreamBrokenError, match=reason):
            await fetch(client, server.url)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 000 OK\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 50])
async def test_what_is_no_answer_is_not_waited_for(client: UpstreamClient, answer: bytes) -> None:
    """Whoever says it leaves the connection open: nothing but what was said ends the call."""
    async with serving(answer) as server:
        with pytest.raises(UpstreamBrokenError, match="does not speak HTTP"):
            await fetch(client, server.url)


async def test_what_was_delivered_before_a_break_is_read(client: UpstreamClient) -> None:
    async def break_off(conversation: Conversation) -> None:
        await conversation.say(CHUNKED_HEAD + b"3\r\nhel\r\nbroken")
        conversation.writer.transport.abort()

    async with serving(break_off) as server:
        response = await client.post(server.url, headers={}, body=b"", timeout_seconds=PATIENT_SECONDS)
        assert await response.next_chunk(timeout_seconds=PATIENT_SECONDS) == b"hel"
        for _ in range(2):
            with pytest.raises(UpstreamBrokenError):
                await response.next_chunk(timeout_seconds=PATIENT_SECONDS)
        await response.aclose()


async def test_a_redirect_is_an_answer_like_any_other(client: UpstreamClient) -> None:
    async with serving(b"HTTP/1.1 307 Moved\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n") as server:
        response = await client.post(server.url, headers={}, body=b"", timeout_seconds=PATIENT_SECONDS)
        await response.aclose()
    assert (response.status, response.headers["location"]) == (307, "http://127.0.0.1:1/")


async def test_a_body_past_the_bound_is_not_read(client: UpstreamClient) -> None:
    async with serving(WHOLE) as server:
        response = await client.post(server.url, headers={}, body=b"", timeout_seconds=PATIENT_SECONDS)
        with pytest.raises(UpstreamTooLargeError):
            await response.read(timeout_seconds=PATIENT_SECONDS, total_seconds=PATIENT_SECONDS, max_bytes=4)
        await response.aclose()


# --- headers of ours -------------------------------------------------------------------------------------------------


async def test_header_bytes_of_a_client_pass_unchanged(client: UpstreamClient) -> None:
    async with serving(WHOLE) as server:
        for value in (b"caf\xc3\xa9".decode("latin-1"), b"caf\xe9".decode("latin-1")):
            response = await client.post(server.url, headers={"x-a": value}, body=b"", timeout_seconds=PATIENT_SECONDS)
            await response.aclose()
        response = await client.post(server.url, headers={"x-a": "日本"}, body=b"", timeout_seconds=PATIENT_SECONDS)
        await response.aclose()
    values = [head.split(b"x-a: ")[1].removesuffix(b"\r\n\r\n") for head, _ in server.requests]
    assert values == [b"caf\xc3\xa9", b"caf\xe9", "日本".encode()]


@pytest.mark.parametrize("value", ["a\r\nx-b: 1", "a\nx-b: 1", "a\rb", "a\n\rb", "a\x00b"])
async def test_nobody_writes_a_header_into_another(client: UpstreamClient, value: str) -> None:
    async with serving(WHOLE) as server:
        with pytest.raises(UpstreamBrokenError, match="line break or NUL"):
            await client.post(server.url, headers={"x-a": value}, body=b"", timeout_seconds=PATIENT_SECONDS)
        assert server.conversations == []


# --- waiting ---------------------------------------------------------------------------------------------------------


async def test_a_silent_upstream_is_left_and_knows_it(client: UpstreamClient) -> None:
    async with serving(lambda conversation: conversation.wait_for_close()) as server:
        with pytest.raises(UpstreamTimeoutError, match="No answer within"):
            await fetch(client, server.url, timeout_seconds=0.05)
        assert await server.ended.get() == "connection"


class StandsStill(asyncio.Protocol):
    """Whatever it receives lets the loop stand still past time-outs, and the upstream say something meanwhile."""

    def __init__(self, upstream: socket.socket, said: bytes) -> None:
        self._upstream = upstream
        self._said = said

    def data_received(self, data: bytes) -> None:
        self._upstream.sendall(self._said)
        time.sleep(STILL_SECONDS)


@pytest.mark.parametrize("rest", [b"", b"lo"], ids=["all of it", "the rest later"])
async def test_what_came_while_the_process_stood_still_is_read(client: UpstreamClient, rest: bytes) -> None:
    """A process that was stopped, or a machine that slept, finds its time-outs over when it goes on. What it waits for
    then has its whole time.
    """
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        fetching = asyncio.create_task(fetch(client, f"http://127.0.0.1:{port}/", timeout_seconds=SHORT_SECONDS))
        upstream, _ = await loop.sock_accept(server)
    ours, theirs = socket.socketpair()
    with upstream, theirs:
        transport, _ = await loop.create_connection(lambda: StandsStill(upstream, WHOLE.removesuffix(rest)), sock=ours)
        theirs.send(b"!")
        await asyncio.sleep(STILL_SECONDS + 10 * LOOK_AGAIN_SECONDS)
        upstream.sendall(rest)
        assert await fetching == b"hello"
        transport.close()


async def test_a_call_is_taken_back_before_its_answer_begins(client: UpstreamClient) -> None:
    async with serving(lambda conversation: conversation.wait_for_close()) as server:
        call = asyncio.create_task(fetch(client, server.url))
        await server.was_asked.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await server.ended.get() == "connection"


async def test_waiting_is_taken_up_again_after_a_time_out_and_a_cancellation(client: UpstreamClient) -> None:
    go_on = asyncio.Event()

    async def pause(conversation: Conversation) -> None:
        await conversation.say(CHUNKED_HEAD + b"3\r\nhel\r\n")
        await go_on.wait()
        await conversation.say(b"2\r\nlo\r\n0\r\n\r\n")

    async with serving(pause) as server:
        response = await client.post(server.url, headers={}, body=b"", timeout_seconds=PATIENT_SECONDS)
        assert await response.next_chunk(timeout_seconds=PATIENT_SECONDS) == b"hel"
        for _ in range(2):
            with pytest.raises(UpstreamTimeoutError, match=r"No data for 0\.01 s"):
                await response.next_chunk(timeout_seconds=0.01)
        waiting = asyncio.create_task(response.next_chunk(timeout_seconds=PATIENT_SECONDS))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        go_on.set()
        assert await response.next_chunk(timeout_seconds=PATIENT_SECONDS) == b"lo"
        assert await response.next_chunk(timeout_seconds=PATIENT_SECONDS) is None
        await response.aclose()


async def test_an_answer_that_drips_for_ever_ends(client: UpstreamClient) -> None:
    async def drip(conversation: Conversation) -> None:
        await conversation.say(CHUNKED_HEAD)
        while True:
            await conversation.say(b"1\r\nx\r\n")
            await asyncio.sleep(0.01)

    async with serving(drip) as server:
        response = await client.post(server.url, headers={}, body=b"", timeout_seconds=PATIENT_SECONDS)
        with pytest.raises(UpstreamTimeoutError):
            await response.read(timeout_seconds=PATIENT_SECONDS, total_seconds=0.1)
        await response.aclose()
        assert await server.ended.get() == "connection"


async def test_whoever_waits_can_be_interrupted(client: UpstreamClient) -> None:
    async def pause(conversation: Conversation) -> None:
        await conversation.say(CHUNKED_HEAD)
        await conversation.wait_for_close()

    async with serving(pause) as server:
        response = await client.post(server.url, headers={}, body=b"", timeout_seconds=PATIENT_SECONDS)
        waiting = asyncio.create_task(response.next_chunk(timeout_seconds=PATIENT_SECONDS))
        await asyncio.sleep(0.01)
        response.interrupt()
        with pytest.raises(UpstreamBrokenError, match="stopped reading"):
            await waiting
        await response.aclose()


async def test_what_nobody_reads_is_not_sent(client: UpstreamClient) -> None:
    """The upstream is held up once the sockets' own buffers are full, and what was held up comes whole afterwards."""
    total, piece = 64_000_000, b"x" * 64_000
    sent = 0

    async def flood(conversation: Conversation) -> None:
        nonlocal sent
        await conversation.say(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while sent < total:
            await conversation.say(piece)
            sent += len(piece)

    async with serving(flood) as server:
        response = await client.post(server.url, headers={}, body=b"", timeout_seconds=PATIENT_SECONDS)
        stood_at = -1
        while stood_at != sent:
            stood_at = sent
            await asyncio.sleep(0.2)
        assert sent < total / 2
        assert await response.read(timeout_seconds=PATIENT_SECONDS, total_seconds=PATIENT_SECONDS, max_bytes=total) == (
            b"x" * total
        )
        await response.aclose()
