"""Answers that come before the end of their requests: who still sends gets them, and what it sends has an end."""

import time

import pytest

from gateway.http_protocol import MAX_UNREAD_BYTES
from tests.gateway.test_http_bounds import MESSAGES, head, with_key
from tests.gateway.wire import Connection
from tests.support.live_stack import LiveStack, Tenant

NO_KEY = "x-api-key: cm-AAAAAAAA-" + "A" * 43
LONG_BYTES = 20 * 1024**2
LONG = f"content-length: {LONG_BYTES}"
PIECE = b" " * 1024**2


def send_slowly(connection: Connection, pieces: int) -> None:
    """Send a body, of which a server that closes at once has bytes unread in any case."""
    for _ in range(pieces):
        connection.socket.sendall(PIECE)
        time.sleep(0.005)


@pytest.mark.parametrize("lines", [("connection: close",), (), ("expect: 100-continue",)], ids=str)
@pytest.mark.parametrize("path", [MESSAGES, "/v1/batches"])
def test_who_still_sends_when_it_is_refused_gets_its_answer(
    stack: LiveStack, path: str, lines: tuple[str, ...]
) -> None:
    """A connection that is closed with bytes unread is reset, and what was answered is lost with it."""
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(head(path, NO_KEY, LONG, *lines))
        send_slowly(connection, LONG_BYTES // len(PIECE))
        assert b'"type":"error"' in connection.read_until(b"request_id")


def test_a_connection_is_used_again_after_a_refused_body(stack: LiveStack, alice: Tenant) -> None:
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(head(MESSAGES, NO_KEY, LONG))
        send_slowly(connection, LONG_BYTES // len(PIECE))
        last = head("/v1/models?limit=1", with_key(alice), "connection: close", method="GET")
        connection.socket.sendall(last)
        answers = connection.read_rest()
    assert answers.startswith(b"HTTP/1.1 401 ")
    assert answers.count(b"HTTP/1.1 200 OK") == 1


def test_an_answer_to_http_1_0_waits_for_the_body_too(stack: LiveStack) -> None:
    start = head(MESSAGES, NO_KEY, LONG).replace(b"HTTP/1.1", b"HTTP/1.0")
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(start)
        send_slowly(connection, LONG_BYTES // len(PIECE))
        assert b" 401 " in connection.read_rest()


def test_an_expectation_of_http_1_0_is_not_heard(stack: LiveStack, alice: Tenant) -> None:
    start = head(MESSAGES, f"x-api-key: {alice.secret}", "expect: 100-continue", "content-length: 2")
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(start.replace(b"HTTP/1.1", b"HTTP/1.0") + b"{}")
        assert connection.read_rest().startswith(b"HTTP/1.1 400 ")


def test_what_is_no_http_is_answered_although_more_of_it_comes(stack: LiveStack) -> None:
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(b"NO HTTP\r\n\r\n")
        send_slowly(connection, 8)
        assert b"HTTP/1.1 400 " in connection.read_rest()


@pytest.mark.parametrize("lines", [("connection: close",), ()], ids=str)
def test_a_body_that_nobody_waits_for_has_an_end(stack: LiveStack, lines: tuple[str, ...]) -> None:
    """As long as it is sent, it would be read for ever."""
    with Connection(stack.base_url) as connection:
        connection.socket.sendall(head(MESSAGES, NO_KEY, "transfer-encoding: chunked", *lines))
        piece = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            connection.socket.sendall(piece * (2 * MAX_UNREAD_BYTES // len(PIECE)))
