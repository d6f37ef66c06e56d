"""Pages passed on over a Unix socket: all arrives as it was sent, bounded, and a process that is away is said so."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from crossmodel_site import page_relay
from crossmodel_site.page_bodies import MAX_BODY_BYTES
from crossmodel_site.page_relay import PageRelay, render_head, with_true_client
from gateway.http_protocol import ABORT

OK = (
    b"HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
)
CUT = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"
Messages = list[dict[str, Any]]


def scope_of(method: str = "GET", headers: list[tuple[bytes, bytes]] | None = None) -> dict[str, Any]:
    return {
        "type": "http",
        "method": method,
        "path": "/usage/",
        "raw_path": b"/usage/",
        "query_string": b"by=day",
        "headers": headers or [(b"host", b"cm.example"), (b"connection", b"keep-alive")],
        "client": ("203.0.113.9", 4711),
    }


def relay(folder: Path, answer: bytes | None, scope: dict[str, Any], body: bytes = b"") -> tuple[bytes, Messages]:
    """Return what the other process got, and what the client was sent. Without an answer nobody listens."""
    got = bytearray()
    sent: Messages = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        got.extend(head + await reader.readexactly(len(body)))
        writer.write(answer or b"")
        writer.close()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(dict(message))

    async def run() -> None:
        path = str(folder / "socket")
        server = await asyncio.start_unix_server(serve, path) if answer is not None else None
        await PageRelay(path)(scope, receive, send)
        if server is not None:
            server.close()

    asyncio.run(run())
    return bytes(got), sent


def text_of(sent: Messages) -> bytes:
    return b"".join(message.get("body", b"") for message in sent)


def test_a_request_and_its_answer_pass_as_they_are(tmp_path: Path) -> None:
    got, sent = relay(tmp_path, OK, scope_of("POST"), b"name=value")
    assert got == (
        b"POST /usage/?by=day HTTP/1.1\r\nhost: cm.example\r\nx-forwarded-for: 203.0.113.9\r\n"
        b"content-length: 10\r\nconnection: close\r\n\r\nname=value"
    )
    assert sent[0] == {
        "type": "http.response.start",
        "status": 200,
        "headers": [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")],
    }
    assert (text_of(sent), sent[-1].get("more_body")) == (b"abcde", None)


def test_who_names_no_host_is_passed_on_as_one_who_need_not(tmp_path: Path) -> None:
    """Probes of load balancers speak HTTP/1.0; HTTP/1.1 without a host would be refused."""
    got, _ = relay(tmp_path, OK, scope_of(headers=[(b"accept", b"*/*")]))
    assert got.startswith(b"GET /usage/?by=day HTTP/1.0\r\naccept: */*\r\n")


def test_head_is_asked_as_get_and_answered_without_a_body(tmp_path: Path) -> None:
    got, sent = relay(tmp_path, OK, scope_of("HEAD"))
    assert got.startswith(b"GET ")
    assert (sent[0]["status"], text_of(sent)) == (200, b"")


@pytest.mark.parametrize("answer", [None, b"", b"no HTTP at all\r\n\r\n"], ids=["away", "silent", "foreign"])
def test_a_process_that_does_not_answer_is_said_so(tmp_path: Path, answer: bytes | None) -> None:
    _, sent = relay(tmp_path, answer, scope_of())
    assert (sent[0]["status"], dict(sent[0]["headers"])[b"retry-after"]) == (503, b"2")


def test_a_page_that_is_cut_is_not_ended(tmp_path: Path) -> None:
    _, sent = relay(tmp_path, CUT, scope_of())
    assert text_of(sent) == b"abc"
    assert sent[-1]["more_body"], "so that the server closes the connection, and the client sees that more was to come"


def test_a_large_body_is_refused_before_it_is_passed_on(tmp_path: Path) -> None:
    got, sent = relay(tmp_path, OK, scope_of("POST"), b"x" * (MAX_BODY_BYTES + 1))
    assert (sent[0]["status"], got) == (413, b"")


@pytest.mark.parametrize("claimed", [[], [(b"x-forwarded-for", b"198.51.100.1")]])
def test_the_client_is_who_came_to_the_gateway(claimed: list[tuple[bytes, bytes]]) -> None:
    """What a client claims of itself stays a claim: whom to believe is CROSSMODEL_TRUSTED_PROXIES' to say."""
    lines = render_head(scope_of(headers=claimed), 0).split(b"\r\n")[1:]
    headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines) if name]
    seen = with_true_client({**scope_of(headers=headers), "client": None})
    assert seen["client"] == ("203.0.113.9", 0)
    assert [pair for pair in seen["headers"] if pair[0] == b"x-forwarded-for"] == claimed


def test_what_is_forwarded_by_nobody_is_left_alone() -> None:
    scope: dict[str, Any] = {**scope_of(), "client": None}
    assert with_true_client(scope) == scope


async def test_a_client_that_reads_nothing_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some hundreds of them kept everybody from every page, for as long as they liked."""
    monkeypatch.setattr(page_relay, "STALL_SECONDS", 0.5)
    aborted = asyncio.Event()
    relay = PageRelay(str(tmp_path / "socket"))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message.get("more_body"):
            await asyncio.sleep(60)

    server = await asyncio.start_unix_server(serve, str(tmp_path / "socket"))
    async with asyncio.timeout(20):
        await relay({**scope_of(), "extensions": {ABORT: {"call": aborted.set}}}, receive, send)
    server.close()
    assert aborted.is_set()
    assert not relay._running
