"""The server's side of HTTP/1.1: uvicorn's on httptools, with our own words for what is no HTTP, and bounds on it.

Named to uvicorn as `--http gateway.http_protocol:HttpProtocol`. What a request says is never judged here, only whether
it is one: the application sees nothing of what is refused. Names of uvicorn that are not its public ones stay in this
file; tests/gateway/test_http_bounds.py fails when one goes.

- A request is HTTP/1.1 or 1.0 and names one host (RFC 9112, 2.3 and 3.2): what stands before us may read it otherwise.
- A trailer never becomes a header (RFC 9110, 6.5.1): it would come after everything that headers are asked for.
- A request to upgrade is ignored (RFC 9110, 7.8) and its request served; what follows on the connection is not read.
- Heads must be whole in time, and connections are bounded, in all and for each address but those of trusted proxies.
- What a client still sends when it has its answer is read and dropped, in bounds: a connection that is closed with
  bytes unread is reset, and the answer lost with it. Through a proxy the answer comes behind it: see held_answers.py.
"""

import asyncio
import re
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import httptools
from django.conf import settings
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from accounts.request_credentials import lies_in, read_networks
from billing.request_id import REQUEST_PREFIX, make_request_id
from gateway.errors import GatewayError, render_error, too_many_connections
from gateway.open_files import most_connections
from gateway.server.held_answers import HeldAnswer
from gateway.server.one_request import OneRequest

MAX_HEAD_BYTES = 64 * 1024  # Request line and headers; what a single read of the socket brings more is let pass.
MAX_FRAMING_BYTES = 64 * 1024  # Of a body between two parts of it: chunk extensions, trailers.
HEAD_SECONDS = 30.0  # From the opening of a connection, or the first byte of a request, to the end of its headers.
SWEEP_SECONDS = 5.0
# Between two requests of a connection. Longer than proxies and load balancers keep one (60 s, most of them): who closes
# first must not be we, for a request that is on its way then is lost, and nobody may send a POST again by itself.
KEEP_ALIVE_SECONDS = 75
UNREAD_SECONDS = 30.0  # From an answer to the end of the body that it did not wait for,
MAX_UNREAD_BYTES = 64 * 1024**2  # and what may come of it.
# What the kernel keeps for a client that reads nothing: 4 MiB otherwise. It doubles this for needs of its own.
SEND_BUFFER_BYTES = 128 * 1024
MAX_WHOLE_BYTES = 64 * 1024  # What is longer costs more to copy behind its head than a second write.
RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for 0 s.
# An extension of ASGI of our own: scope["extensions"][ABORT]["call"]() lets go of the connection at once.
ABORT = "crossmodel.abort"
OFFER_HEADERS = (b"upgrade", b"connection", b"http2-settings")
VERSIONS = ("1.0", "1.1")
HOST = re.compile(rb"(?:[\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+(?:%25[\w.~%-]+)?\])(?::\d*)?")  # RFC 3986, 3.2.2.

# Connections of this process, by the address at the other end.
_connections: Counter[str] = Counter()
_sweeping: asyncio.TimerHandle | None = None


class HttpProtocol(HttpToolsProtocol):
    """Answers in the documented form of an error, with a request id, and closes the connection."""

    _is_in_head = True
    _head_since = 0.0
    _head_bytes = 0
    _framing_bytes = 0
    _had_body = False
    _ignores_rest = False
    _ignored_upgrade = False
    _answering: RequestResponseCycle | None = None
    _refusal: GatewayError | None = None  # Of what came behind requests that are not answered yet.
    _unread_since = 0.0  # When an answer was complete whose request was not; 0 when there is none.
    _unread_bytes = 0
    _address = ""
    _is_proxy = False
    _held: HeldAnswer | None = None

    def __init__(
        self, config: Config, server_state: ServerState, app_state: dict[str, Any], _loop: Any | None = None
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.timeout_keep_alive = KEEP_ALIVE_SECONDS
        # Which program answers is nobody's business. The first list is made from the second once a second.
        for headers in (server_state.default_headers, config.encoded_headers):
            if any(name == b"server" for name, _ in headers):
                headers[:] = [pair for pair in headers if pair[0] != b"server"]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        super().connection_made(transport)
        opened = transport.get_extra_info("socket")
        if opened is not None and opened.family in (socket.AF_INET, socket.AF_INET6):
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        self._head_since = self.loop.time()
        self._address = self.client[0] if self.client else ""
        self._is_proxy = bool(settings.TRUSTED_PROXIES) and _is_trusted_proxy(self._address)
        _connections[self._address] += 1
        _start_sweeping(self)
        if _is_too_many(self._address):
            self._refuse(too_many_connections())
            transport.close()  # There is no room to wait for anybody.

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answering is not None and not self._answering.response_complete:
            # The last request that came may be another one: uvicorn tells only that of the loss.
            self._answering.disconnected = True
            self._answering.message_event.set()
        for cycle in (self.cycle, self._answering):
            if cycle is not None:
                cycle.transport = self.transport  # Not what leads back here: who holds the other would hold both.
        self._held = None
        _connections[self._address] -= 1
        if not _connections[self._address]:
            del _connections[self._address]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._unread_since:
            self._unset_keepalive_if_required()
            self._unread_bytes += len(data)
            if self._unread_bytes > MAX_UNREAD_BYTES:
                self._stop_waiting()
                return
        if self._ignores_rest:
            return
        self._had_body = False
        self._feed(data)
        if self._ignores_rest or self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                limit = MAX_HEAD_BYTES // 1024
                self._refuse(GatewayError(431, "headers_too_large", f"The headers are larger than {limit} KiB."))
        elif not self._had_body:
            self._framing_bytes += len(data)
            if self._framing_bytes > MAX_FRAMING_BYTES:
                self._refuse(GatewayError(400, "invalid_http", "The trailers or chunk extensions are too long."))

    def _feed(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._serve_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _serve_without_upgrade(self, rest: bytes) -> None:
        """Go on as if no upgrade was asked for: the parser, which takes what follows the head for another protocol,
        is replaced by one that reads the same head without the upgrade, and the body behind it.

        Whatever comes after this request may be meant in the other protocol, or be somebody else's: it is not read, and
        the connection ends with the answer. What asks to be another protocol in every reading (CONNECT) is refused.
        """
        if self._ignored_upgrade:
            self.send_400_response("")
            return
        self._ignored_upgrade = True
        lines = [b"%b %b HTTP/1.1" % (self.scope["method"].encode(), self.url)]
        lines += [b"%b: %b" % pair for pair in self.headers if pair[0] not in OFFER_HEADERS]
        self.parser = httptools.HttpRequestParser(OneRequest(self))
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope.setdefault("extensions", {})[ABORT] = {"call": partial(abort, self.transport)}
        self._is_in_head, self._head_bytes, self._framing_bytes = True, 0, 0
        self._head_since = self.loop.time()

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        _require_one_host(version, self.headers)
        if version == "1.0" and self.expect_100_continue:  # It knows no interim answers (RFC 9110, 10.1.1).
            self.expect_100_continue = False
            self.headers[:] = [pair for pair in self.headers if pair[0] != b"expect"]
        if self.parser.should_upgrade():
            self.scope["method"] = self.parser.get_method().decode("ascii")
            return  # It is read again: see _serve_without_upgrade().
        self._is_in_head = False
        super().on_headers_complete()
        if self.expect_100_continue or not self.cycle.keep_alive:
            self.cycle.transport = cast(asyncio.Transport, ClosedWhenRead(self.transport, self.cycle, self))
        if self._is_proxy and not self.expect_100_continue:
            self._held = HeldAnswer(self.cycle.transport, self.cycle)
            self.cycle.transport = cast(asyncio.Transport, self._held)
        self.headers = []  # Trailers are collected here, and nobody looks at them.

    def on_body(self, body: bytes) -> None:
        self._had_body, self._framing_bytes = True, 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._had_body = True
        super().on_message_complete()
        if self._held is not None:
            self._held.let_go()
            self.cycle.transport = cast(asyncio.Transport, self._held.transport)
            self._held = None
        if self._unread_since:
            self._unread_since, self._unread_bytes = 0.0, 0
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        if self._refusal is not None and not self.pipeline and not self.transport.is_closing():
            self._answer_and_close(self._refusal)
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._unread_since = self.loop.time()
        # The time of an idle connection is uvicorn's. The head of the next request may be under way already.
        self._had_body, self._framing_bytes = True, 0

    def send_400_response(self, msg: str) -> None:
        self._refuse(GatewayError(400, "invalid_http", "This is not a valid HTTP/1.1 request."))

    def stop_reading(self) -> None:
        """Take nothing more from this connection."""
        self._ignores_rest = True

    def close_when_read(self) -> None:
        """Say no more, and close once the client has sent all."""
        self._ignores_rest = True
        if self.transport.is_closing() or not self.transport.can_write_eof():
            self.transport.close()
            return
        self._unread_since = self.loop.time()
        self.flow.resume_reading()
        self.transport.write_eof()

    def close_slow(self, now: float) -> None:
        """Close the connection when a head, or a body that was not waited for, has been under way for too long."""
        if self._unread_since:
            if now - self._unread_since > UNREAD_SECONDS:
                self._stop_waiting()
        elif self._is_in_head and now - self._head_since > HEAD_SECONDS and not self._ignores_rest:
            self._refuse(GatewayError(408, "request_timeout", "The request took too long to arrive."))

    def _stop_waiting(self) -> None:
        """Close the connection of who has its answer, or gets it now, and still sends."""
        if self._held is not None and self._held.let_go():
            self.transport.close()
        else:
            self.transport.abort()

    def _refuse(self, error: GatewayError) -> None:
        """Read nothing more, and answer once what came before is answered: each of those requests was whole."""
        if self.transport.is_closing():
            return
        self._ignores_rest = True
        cycle = self.cycle
        if self._unread_since:
            if self._held is not None:
                self._held.let_go()
            self.transport.close()  # It has its answer.
        elif cycle is None or cycle.response_complete:
            self._answer_and_close(error)
        elif not cycle.more_body:
            self._refusal = error
        elif self.pipeline:
            self.pipeline.popleft()  # It is the last that came, and has not begun.
            self._refusal = error
        elif cycle.response_started:
            self.transport.close()  # It is being answered already: a second answer would be taken for another's.
        else:
            # Its body broke on the way. Who waits for the rest of it is told that the client has left.
            cycle.disconnected = True
            cycle.message_event.set()
            self._answer_and_close(error)

    def _answer_and_close(self, error: GatewayError) -> None:
        request_id = REQUEST_PREFIX + make_request_id().hex
        body = render_error(error.status, error.code, error.message, request_id)
        headers = {b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
        headers |= {b"request-id": request_id.encode(), b"connection": b"close"}
        headers |= {name.encode(): value.encode() for name, value in error.response_headers().items()}
        lines = [name + b": " + value for name, value in [*self.server_state.default_headers, *headers.items()]]
        self.transport.write(STATUS_LINE[error.status] + b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.close_when_read()


class ClosedWhenRead:
    """The transport of a request whose connection ends with its answer."""

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle, protocol: HttpProtocol) -> None:
        self._cycle = cycle
        self._protocol = protocol
        self._transport = transport
        self.write, self.is_closing = transport.write, transport.is_closing

    def close(self) -> None:
        """Close it, once the client has sent all of its request."""
        if self._cycle.response_complete and self._cycle.more_body:
            self._protocol.close_when_read()
        else:
            self._transport.close()


def _require_one_host(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Raise ValueError, which ends the connection, for a head that another server might take for another host's."""
    hosts = [value for name, value in headers if name == b"host"]
    if version not in VERSIONS:
        raise ValueError(f"HTTP/{version}")
    if len(hosts) > 1 or not (hosts or version == "1.0") or not all(HOST.fullmatch(host) for host in hosts):
        raise ValueError("a host that is missing, given twice, or none")


def write_whole(send: object, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> bool:
    """Write a whole answer at once, and return True. `send` is what the application was given, and `headers` have the
    length of the body.

    Returns False, and has done nothing, where it is for ASGI to send it: uvicorn writes the head by itself, and each
    write is a call of the system that wakes whoever reads. Raises ValueError for what is no header.
    """
    cycle = getattr(send, "__self__", None)
    if not isinstance(cycle, RequestResponseCycle) or cycle.response_started or cycle.scope["method"] == "HEAD":
        return False
    if cycle.disconnected or cycle.flow.write_paused or len(body) > MAX_WHOLE_BYTES:
        return False
    pairs = [*cycle.default_headers, *headers]
    is_told_to_close = (b"connection", b"close") in headers
    if not cycle.keep_alive and not is_told_to_close:
        pairs.append((b"connection", b"close"))
    head = b"".join([b"%b: %b\r\n" % pair for pair in pairs])
    # Whoever put a line break into a value would write headers, or an answer, of their own.
    if head.count(b"\n") != len(pairs) or head.count(b"\r") != len(pairs) or b"\x00" in head:
        raise ValueError("A header has a line break or NUL in it.")
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[status], head, body))
    cycle.message_event.set()
    if is_told_to_close or not cycle.keep_alive:
        cycle.keep_alive = False
        cycle.transport.close()
    cycle.on_response()
    return True


def abort(transport: asyncio.Transport) -> None:
    """Let go of a connection with a reset: what is closed in order, the kernel keeps until somebody reads it."""
    opened = transport.get_extra_info("socket")
    if opened is not None:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
    transport.abort()


def abort_of(scope: Mapping[str, Any]) -> Callable[[], None]:
    """Return how to let go of a connection whose client reads nothing: a server that closes in order would wait for
    ever for what it has buffered to be read. It does nothing under a server that is not ours.
    """
    extension = scope.get("extensions", {}).get(ABORT)
    return extension["call"] if extension else lambda: None


def _is_too_many(address: str) -> bool:
    most = most_connections()
    if _connections.total() > most:
        return True
    # However few fit: nobody alone takes them all.
    most_of_one = min(settings.MAX_CONNECTIONS_PER_ADDRESS, max(1, most // 2))
    return _connections[address] > most_of_one and not _is_trusted_proxy(address)


def _is_trusted_proxy(address: str) -> bool:
    return lies_in(read_networks(settings.TRUSTED_PROXIES), address)


def _start_sweeping(protocol: HttpProtocol) -> None:
    """Look through the connections every few seconds for as long as there are any: a timer for each would cost more."""
    global _sweeping
    if _sweeping is None:
        _sweeping = protocol.loop.call_later(SWEEP_SECONDS, _sweep, protocol.server_state, protocol.loop)


def _sweep(server_state: ServerState, loop: asyncio.AbstractEventLoop) -> None:
    global _sweeping
    now = loop.time()
    for protocol in list(server_state.connections):
        if isinstance(protocol, HttpProtocol):
            cast(HttpProtocol, protocol).close_slow(now)
    _sweeping = loop.call_later(SWEEP_SECONDS, _sweep, server_state, loop) if server_state.connections else None
