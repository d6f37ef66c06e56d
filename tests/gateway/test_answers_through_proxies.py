"""An answer that came before its request's end, through a proxy: it waits for the end, within bounds."""

import time
from collections.abc import Iterator

import pytest

from tests.gateway.test_early_answers import LONG, LONG_BYTES, NO_KEY, PIECE, send_slowly
from tests.gateway.test_http_bounds import MESSAGES, chunked, encoded, head, with_key
from tests.gateway.wire import Connection
from tests.support.extra_gateway import ExtraGateway, extra_gateway
from tests.support.live_stack import LiveStack, Tenant

PATHS = [MESSAGES, "/v1/batches"]


@pytest.fixture(scope="module")
def _proxied(_standing_stack: LiveStack) -> Iterator[ExtraGateway]:
    with extra_gateway(_standing_stack, "behind-a-proxy", CROSSMODEL_TRUSTED_PROXIES="127.0.0.1") as gateway:
        yield gateway


@pytest.fixture
def proxied(stack: LiveStack, _proxied: ExtraGateway) -> ExtraGateway:
    return _proxied


@pytest.mark.parametrize("path", PATHS)
def test_an_answer_comes_behind_the_body_and_the_connection_goes_on(
    proxied: ExtraGateway, alice: Tenant, path: str
) -> None:
    last = head("/v1/models?limit=1", with_key(alice), "connection: close", method="GET")
    with Connection(proxied.base_url) as connection:
        connection.socket.sendall(head(path, NO_KEY, LONG))
        send_slowly(connection, LONG_BYTES // len(PIECE) - 1)
        assert not has_come(connection)
        connection.socket.sendall(PIECE + last)
        answers = connection.read_rest()
    assert answers.startswith(b"HTTP/1.1 40")
    assert answers.count(b"HTTP/1.1 200 OK") == 1


def has_come(connection: Connection, seconds: float = 0.3) -> bool:
    """Return whether anything comes within this time, and take none of it."""
    before = connection.socket.gettimeout()
    connection.socket.settimeout(seconds)
    try:
        return bool(connection.socket.recv(1, 2))  # MSG_PEEK
    except TimeoutError:
        return False
    finally:
        connection.socket.settimeout(before)


@pytest.mark.parametrize("lines", [("connection: close",), ("connection: upgrade", "upgrade: h2c")], ids=str)
def test_an_answer_that_ends_its_connection_waits_too(proxied: ExtraGateway, lines: tuple[str, ...]) -> None:
    with Connection(proxied.base_url) as connection:
        connection.socket.sendall(head(MESSAGES, NO_KEY, LONG, *lines))
        send_slowly(connection, LONG_BYTES // len(PIECE))
        assert connection.read_rest().count(b"HTTP/1.1 401 ") == 1


def test_who_waits_to_be_told_to_go_on_gets_its_answer_at_once(proxied: ExtraGateway, alice: Tenant) -> None:
    with Connection(proxied.base_url) as connection:
        connection.socket.sendall(head(MESSAGES, NO_KEY, LONG, "expect: 100-continue"))
        assert b"invalid_api_key" in connection.read_until(b"request_id")
    content = encoded()
    with Connection(proxied.base_url) as connection:
        lines = (with_key(alice), f"content-length: {len(content)}", "expect: 100-continue", "connection: close")
        connection.socket.sendall(head(MESSAGES, *lines))
        assert b"100 Continue" in connection.read_until(b"\r\n\r\n")
        connection.socket.sendall(content)
        assert b"HTTP/1.1 200 OK" in connection.read_rest()


def test_a_body_that_breaks_lets_the_answer_go(proxied: ExtraGateway) -> None:
    with Connection(proxied.base_url) as connection:
        connection.socket.sendall(head(MESSAGES, NO_KEY, "transfer-encoding: chunked"))
        connection.socket.sendall(b"1\r\n{\r\n")
        time.sleep(0.2)
        connection.socket.sendall(b"no chunk\r\n")
        answers = connection.read_rest()
    assert answers.count(b"HTTP/1.1 ") == 1
    assert answers.startswith((b"HTTP/1.1 401 ", b"HTTP/1.1 400 "))


def test_requests_that_are_whole_are_answered_as_ever(proxied: ExtraGateway, alice: Tenant) -> None:
    content = encoded(stream=True)
    lines = (with_key(alice), "transfer-encoding: chunked")
    with Connection(proxied.base_url) as connection:
        connection.socket.sendall(head(MESSAGES, *lines) + chunked(content))
        assert b"message_stop" in connection.read_until(b"message_stop")
        connection.socket.sendall(head(MESSAGES, *lines, "connection: close") + chunked(content))
        assert b"message_stop" in connection.read_rest()
