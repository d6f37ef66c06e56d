"""The edge of HTTP, with raw bytes: what is no header and no request of its own, and what may take how long."""

import asyncio
import gzip
import json
import socket
import time
import zlib
from contextlib import ExitStack
from typing import Any

import httpx
import psutil
import pytest
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from accounts.keys import change_key
from gateway.http_protocol import HttpProtocol
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_error, wait_until_released
from tests.gateway.scripted_upstream import COMPLETE, scripted_upstream, streamed
from tests.gateway.wire import Connection
from tests.support.extra_gateway import extra_gateway
from tests.support.live_stack import HTTP, LiveStack, Tenant, body

MESSAGES = "/v1/messages"


def encoded(**fields: Any) -> bytes:
    return json.dumps(body(**fields)).encode()


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "host: localhost", *lines, "", ""]).encode()


def with_key(tenant: Tenant) -> str:
    return f"x-api-key: {tenant.secret}"


def say(base_url: str, *parts: bytes) -> bytes:
    """Send bytes and return everything that comes until the connection ends."""
    with Connection(base_url) as connection:
        for part in parts:
            connection.socket.sendall(part)
        return connection.read_rest()


def chunked(content: bytes, trailers: bytes = b"") -> bytes:
    return b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(content), content, trailers)


# --- trailers -------------------------------------------------------------------------------------------------------


def test_a_key_in_a_trailer_is_none(stack: LiveStack, alice: Tenant) -> None:
    trailer = f"x-api-key: {alice.secret}\r\n".encode()
    for path in (MESSAGES, "/api/v1/credits"):
        start = head(path, "transfer-encoding: chunked", "connection: close")
        assert say(stack.base_url, start, chunked(encoded(), trailer)).startswith(b"HTTP/1.1 40")


@pytest.mark.parametrize("broken", [b"zz\r\n", b"5\r\n{", b"2\r\n{}\r\n0\r\ncontent-length: 3\r\n\r\n"])
def test_a_body_that_breaks_is_told_so(stack: LiveStack, alice: Tenant, broken: bytes) -> None:
    start = head(MESSAGES, with_key(alice), "transfer-encoding: chunked")
    answer = say(stack.base_url, start, broken + b"no chunk at all\r\n\r\n")
    assert answer.count(b"HTTP/1.1 4") == 1
    assert b'"code":"invalid_http"' in answer
    wait_until_released(stack, alice)


def test_an_address_in_a_trailer_passes_no_list(stack: LiveStack) -> None:
    tenant = stack.make_tenant()
    change_key(tenant.key, fields={"allowed_networks": ["203.0.113.0/24"]})
    with extra_gateway(stack, "proxied", CROSSMODEL_TRUSTED_PROXIES="127.0.0.1") as gateway:
        start = head(MESSAGES, with_key(tenant), "transfer-encoding: chunked", "connection: close")
        answer = say(gateway.base_url, start, chunked(encoded(), b"x-forwarded-for: 203.0.113.5\r\n"))
        assert b"network_not_allowed" in answer


@pytest.mark.parametrize("flood", [b"a: " + b"b" * 1000 + b"\r\n", b"c" * 1000])
def test_a_flood_of_trailers_is_cut(stack: LiveStack, alice: Tenant, flood: bytes) -> None:
    """Many, and one that never ends."""
    assert stack.gateway is not None
    process = psutil.Process(stack.gateway.pid)
    before = process.memory_info().rss
    start = head(MESSAGES, with_key(alice), "transfer-encoding: chunked", "connection: close")
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(start + chunked(encoded())[:-2])
        connection.socket.sendall(flood * 30_000)
        assert b'"code":"invalid_http"' in connection.read_rest()
    assert process.memory_info().rss - before < 20 * 1024**2


def test_trailers_of_an_upstream_are_no_headers_and_are_cut(stack: LiveStack, alice: Tenant) -> None:
    whole = streamed(*COMPLETE)
    content = whole.partition(b"\r\n\r\n")[2]
    chunks = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(
        content
    )
    with scripted_upstream() as upstream:
        sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
        upstream.script = chunks[:-2] + b"retry-after: 7\r\nset-cookie: a=b\r\n\r\n"
        answer = stack.post(alice, model=sold.model_id, stream=True)
        assert answer.status_code == 200
        assert "message_stop" in answer.text
        assert "set-cookie" not in answer.headers
        upstream.script = [chunks[:-2], *([b"a: " + b"b" * 60_000 + b"\r\n"] * 400)]
        assert stack.post(alice, model=sold.model_id, stream=True).status_code == 200


# --- upgrades to other protocols -----------------------------------------------------------------------------------

H2C_SETTINGS = "http2-settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAAAAYABgAA"
WEBSOCKET = ("sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13")
UPGRADES = {
    "h2c": ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", H2C_SETTINGS),
    "websocket": ("connection: upgrade", "upgrade: websocket", *WEBSOCKET),
    "tls": ("connection: upgrade", "upgrade: TLS/1.0"),
}


@pytest.mark.parametrize("lines", UPGRADES.values(), ids=UPGRADES.keys())
@pytest.mark.parametrize("is_cut", [False, True])
def test_an_upgrade_is_ignored_and_the_request_served(
    stack: LiveStack, alice: Tenant, lines: tuple[str, ...], is_cut: bool
) -> None:
    content = encoded()
    start = head(MESSAGES, with_key(alice), *lines, f"content-length: {len(content)}", "content-type: application/json")
    parts = [start, content[:20], content[20:]] if is_cut else [start + content]
    answer = say(stack.base_url, *parts)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"type":"message"' in answer
    assert b"101" not in answer.split(b"\r\n")[0]


@pytest.mark.parametrize("lines", UPGRADES.values(), ids=UPGRADES.keys())
def test_what_follows_an_upgrade_is_no_request(stack: LiveStack, alice: Tenant, lines: tuple[str, ...]) -> None:
    """To a proxy in front these bytes belong to the other protocol, or to somebody else."""
    smuggled = head("/v1/models", with_key(alice), method="GET")
    content = encoded()
    start = head(MESSAGES, with_key(alice), *lines, f"content-length: {len(content)}")
    answer = say(stack.base_url, start + content + smuggled, smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1
    answer = say(stack.base_url, head("/v1/models", with_key(alice), *lines, method="GET") + smuggled)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_waits_for_100_gets_it_once_its_key_is_known(stack: LiveStack, alice: Tenant) -> None:
    content = encoded()
    lines = ("expect: 100-continue", f"content-length: {len(content)}", "connection: close")
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(head(MESSAGES, with_key(alice), *lines))
        connection.read_until(b"100 Continue\r\n\r\n")
        connection.socket.sendall(content)
        assert b"HTTP/1.1 200 OK" in connection.read_rest()
    answer = say(stack.base_url, head(MESSAGES, "x-api-key: cm-AAAAAAAA-" + "A" * 43, *lines))
    assert answer.startswith(b"HTTP/1.1 401 ")


def test_pipelined_requests_are_answered_in_turn(stack: LiveStack, alice: Tenant) -> None:
    one = head("/v1/models?limit=1", with_key(alice), method="GET")
    last = head("/v1/models?limit=1", with_key(alice), "connection: close", method="GET")
    assert say(stack.base_url, one * 3 + last).count(b"HTTP/1.1 200 ") == 4


# --- paths ------------------------------------------------------------------------------------------------------------


def test_an_absolute_address_is_served(stack: LiveStack, alice: Tenant) -> None:
    content = encoded()
    start = head(
        "http://localhost/v1/messages", with_key(alice), f"content-length: {len(content)}", "connection: close"
    )
    assert say(stack.base_url, start + content).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("//v1/messages", "/v1/messages"),
        ("/V1/messages", "/v1/messages"),
        ("/v1/messages/", "/v1/messages"),
        ("/v1/v1/messages", "/v1/messages"),
        ("/v1/V1/Messages", "/v1/messages"),
        ("/messages", "/v1/messages"),
        ("/v1//messages//count_tokens", "/v1/messages/count_tokens"),
        ("/V1/models", "/v1/models"),
        ("/v1/keys", "/api/v1/keys"),
        ("/v1/api/v1/keys/", "/api/v1/keys"),
        ("/v1/batches", None),
        ("/v1", None),
        ("/v1/" + "x" * 5_000, None),
    ],
)
def test_a_path_that_is_nearly_right_is_told_what_was_meant(
    stack: LiveStack, alice: Tenant, path: str, meant: str | None
) -> None:
    answer = say(stack.base_url, head(path, with_key(alice), "content-length: 2", "connection: close") + b"{}")
    text = answer.partition(b"\r\n\r\n")[2].decode()
    error = json.loads(text)["error"]
    assert error["code"] == "not_found"
    assert len(text) < 1_000
    assert (f"Did you mean {meant}?" in error["message"]) if meant else ("Did you mean" not in error["message"])


# --- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("coding", "encode"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)]
)
def test_a_compressed_body_is_decoded(stack: LiveStack, alice: Tenant, coding: str, encode: Any) -> None:
    for path, status in ((MESSAGES, 200), (MESSAGES + "/count_tokens", 200)):
        headers = {**alice.headers, "content-encoding": coding, "content-type": "application/json"}
        assert HTTP.post(stack.base_url + path, headers=headers, content=encode(encoded())).status_code == status


def test_a_bomb_is_refused_within_the_limit(stack: LiveStack, alice: Tenant) -> None:
    headers = {**alice.headers, "content-encoding": "gzip"}
    bomb = gzip.compress(b" " * 300 * 1024**2)
    assert_error(HTTP.post(stack.base_url + MESSAGES, headers=headers, content=bomb), 413, "request_too_large")


@pytest.mark.parametrize(
    ("coding", "content", "status", "code"),
    [
        ("br", b"x", 415, "unsupported_content_encoding"),
        ("gzip, gzip", gzip.compress(b"{}", mtime=0), 415, "unsupported_content_encoding"),
        ("gzip", b"{}", 400, "invalid_content_encoding"),
        ("gzip", gzip.compress(b"{}" * 100, mtime=0)[:-9], 400, "invalid_content_encoding"),
        ("gzip", gzip.compress(b"{}", mtime=0) * 2, 400, "invalid_content_encoding"),
        ("deflate", zlib.compress(b"{}") + b"more", 400, "invalid_content_encoding"),
        ("identity", b"{}", 400, None),
    ],
)
def test_other_codings_are_refused_by_name(
    stack: LiveStack, alice: Tenant, coding: str, content: bytes, status: int, code: str | None
) -> None:
    headers = {**alice.headers, "content-encoding": coding}
    answer = HTTP.post(stack.base_url + MESSAGES, headers=headers, content=content)
    assert answer.status_code == status
    if code:
        assert "ontent-" in assert_error(answer, status, code) or coding in answer.text


def test_a_body_that_is_compressed_for_its_way_is_refused_by_name(stack: LiveStack, alice: Tenant) -> None:
    """It was read as if it were JSON: the parser takes away the chunks, and nothing the rest."""
    start = head(MESSAGES, with_key(alice), "transfer-encoding: gzip, chunked", "connection: close")
    answer = say(stack.base_url, start, chunked(gzip.compress(encoded())))
    assert answer.startswith(b"HTTP/1.1 415 ")
    assert b"Transfer-Encoding 'gzip, chunked' is not supported" in answer


def test_nobody_without_a_key_has_a_body_received(stack: LiveStack) -> None:
    """Six connections announce 31 MiB each: they are answered from their heads, and nothing of them is kept."""
    assert stack.gateway is not None
    process = psutil.Process(stack.gateway.pid)
    before = process.memory_info().rss
    for line in ("x-api-key: cm-AAAAAAAA-" + "A" * 43, "x-a: b"):
        with ExitStack() as exits:
            for _ in range(6):
                connection = exits.enter_context(Connection(stack.base_url))
                connection.socket.sendall(head(MESSAGES, line, f"content-length: {31 * 1024**2}"))
                assert connection.read_until(b"\r\n\r\n").startswith(b"HTTP/1.1 401 ")
    assert process.memory_info().rss - before < 10 * 1024**2


def test_bodies_have_room_for_others_beside_one_organization(stack: LiveStack, alice: Tenant) -> None:
    """The least room that can be set holds two of the largest bodies: one for an organization with all of its keys."""
    with (
        extra_gateway(stack, "narrow", CROSSMODEL_MAX_BODY_ROOM_BYTES=str(64 * 1024**2)) as gateway,
        ExitStack() as exits,
    ):
        for tenant in (alice, stack.second_key(alice), stack.second_key(alice)):
            connection = exits.enter_context(Connection(gateway.base_url))
            connection.socket.sendall(head(MESSAGES, with_key(tenant), f"content-length: {30 * 1024**2}"))
            try:
                connection.socket.sendall(b"a" * 20 * 1024**2)
            except ConnectionError:
                connection.socket.settimeout(1)
        bob = stack.make_tenant()
        answer = HTTP.post(gateway.base_url + MESSAGES, headers=bob.headers, content=b"a" * 20 * 1024**2)
        assert_error(answer, 400, "invalid_json")


# --- time and number --------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_heads_and_bodies_that_do_not_come_are_given_up(
    stack: LiveStack, alice: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with extra_gateway(stack, "hasty") as gateway, ExitStack() as exits:
        heads = [exits.enter_context(Connection(gateway.base_url)) for _ in range(20)]
        for connection in heads:
            connection.socket.sendall(b"POST /v1/messages HTTP/1.1\r\nhost: loc")
        slow = exits.enter_context(Connection(gateway.base_url))
        slow.socket.sendall(head(MESSAGES, with_key(alice), "content-length: 1000") + b"{")
        slow.socket.settimeout(60)
        assert b"408" in slow.read_until(b"\r\n\r\n")
        for connection in heads:
            connection.socket.settimeout(60)
            assert b"408" in connection.read_until(b"\r\n\r\n")


def test_connections_of_one_address_are_bounded(stack: LiveStack, alice: Tenant) -> None:
    with extra_gateway(stack, "few", CROSSMODEL_MAX_CONNECTIONS_PER_ADDRESS="5") as gateway:
        with ExitStack() as exits:
            for _ in range(5):
                exits.enter_context(Connection(gateway.base_url))
            with Connection(gateway.base_url) as one_more:
                one_more.socket.sendall(head("/v1/models", with_key(alice), method="GET"))
                assert b"too_many_connections" in one_more.read_rest()
        assert HTTP.get(gateway.base_url + "/v1/models", headers=alice.headers).status_code == 200


# --- browsers -----------------------------------------------------------------------------------------------------


def test_apps_in_browsers_of_configured_origins_may_call(stack: LiveStack, alice: Tenant) -> None:
    origin = "https://app.example.org"
    with extra_gateway(stack, "browsers", CROSSMODEL_BROWSER_ORIGINS=origin) as gateway:
        asked = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-api-key, anthropic-version, anthropic-dangerous-direct-browser-access",
        }
        preflight = HTTP.options(gateway.base_url + MESSAGES, headers=asked)
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == origin
        assert preflight.headers["access-control-allow-headers"] == asked["access-control-request-headers"]
        for headers, status in ((alice.headers, 200), ({}, 401)):
            answer = HTTP.post(gateway.base_url + MESSAGES, headers={**headers, "origin": origin}, json=body())
            assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, origin)
            assert "request-id" in answer.headers["access-control-expose-headers"]
        other = HTTP.post(
            gateway.base_url + MESSAGES, headers={**alice.headers, "origin": "https://evil.example"}, json=body()
        )
        assert "access-control-allow-origin" not in other.headers
        refused = HTTP.options(gateway.base_url + MESSAGES, headers={**asked, "origin": "https://evil.example"})
        assert_error(refused, 403, "origin_not_allowed")
    assert_error(HTTP.options(stack.base_url + MESSAGES, headers=asked), 403, "origin_not_allowed")


def test_no_answer_names_the_server(stack: LiveStack, alice: Tenant) -> None:
    for path in ("/", "/v1/models", "/healthz", "/nothing"):
        assert "server" not in HTTP.get(stack.base_url + path, headers=alice.headers).headers
    assert b"server:" not in say(stack.base_url, b"no http\r\n\r\n").lower()
    with httpx.Client(headers=alice.headers) as kept:  # uvicorn makes its headers anew each second.
        for _ in range(5):
            assert "server" not in kept.get(stack.base_url + "/v1/models").headers
            time.sleep(0.25)


async def test_the_names_that_the_seam_uses_are_there() -> None:
    """What gateway/http_protocol.py takes from uvicorn beside its public names, on a request that has just come."""
    for name in ("_unset_keepalive_if_required", "on_response_complete", "on_headers_complete", "_start_asgi_task"):
        assert callable(getattr(HttpToolsProtocol, name))
    assert STATUS_LINE[431].startswith(b"HTTP/1.1 431 ")
    asked: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def application(scope: dict[str, Any], receive: object, send: object) -> None:
        await asked.put(scope)
        await asyncio.Event().wait()

    config = Config(application, lifespan="off")
    config.load()
    protocol = HttpProtocol(config, ServerState(), {})
    ours, theirs = socket.socketpair()
    with theirs:
        transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=ours)
        theirs.sendall(b"GET /v1/models HTTP/1.1\r\nhost: here\r\n\r\n")
        scope = await asked.get()
        cycle = protocol.cycle
        assert (protocol.url, protocol.headers, len(protocol.pipeline)) == (b"/v1/models", [], 0)
        assert (cycle.response_started, cycle.disconnected) == (False, False)
        assert {"keep_alive", "message_event", "response_complete"} <= set(vars(cycle))
        assert protocol.server_state.default_headers == []
        scope["extensions"]["crossmodel.abort"]["call"]()
        assert transport.is_closing()
        assert await asyncio.to_thread(theirs.recv, 1) == b""
