"""An httpx transport for upstreams: HTTP/1.1 over kept connections, nothing read ahead, nothing decoded, no redirects.

It reads `timeout` of a request's extensions as httpx' own transports do: `connect` and `read`, in seconds; and calls
`on_connected`, where there is one, once a connection stands. Proxies that the environment names are not used.
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import httpx
from aiohappyeyeballs import start_connection

from gateway.http.addresses import allowed_addresses
from gateway.http.connection import HttpConnection
from gateway.http.errors import NoRoomError
from gateway.open_files import is_lacking_here

# Many servers (uvicorn, Node) close after five idle seconds: a request should not meet a connection that is closing.
MAX_IDLE_SECONDS = 4.0
NEXT_ADDRESS_SECONDS = 0.25
KEEPALIVE_SECONDS = 30
MAX_IDLE_CONNECTIONS = 1_000  # For each origin; more than these are closed once they are free.

Origin = tuple[str, str, int]


class UpstreamTransport(httpx.AsyncBaseTransport):
    """Connections by origin; the one that was used last is used next."""

    def __init__(self) -> None:
        self._idle: dict[Origin, list[HttpConnection]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._tls = httpx.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the answer as soon as its headers are here. Raises httpx.TransportError, NoRoomError; then the call is
        closed, also when it was cancelled.
        """
        timeout = request.extensions["timeout"]
        origin = _origin_of(request.url)
        body = request.read()
        head = render_head(request, len(body))
        connection = self._take(origin) or await self._connect(origin, timeout["connect"])
        try:
            if "on_connected" in request.extensions:
                request.extensions["on_connected"]()
            connection.send(head, body)
            await connection.receive_head(timeout_seconds=timeout["read"])
        except BaseException:
            connection.close()
            raise
        stream = AnswerStream(connection, self, origin, timeout_seconds=timeout["read"])
        return httpx.Response(connection.status, headers=connection.headers, stream=stream)

    def take_back(self, connection: HttpConnection, origin: Origin) -> None:
        """Keep a connection whose answer was read to its end; close any other."""
        if not connection.end_call():
            return
        idle = self._idle.setdefault(origin, [])
        if len(idle) >= MAX_IDLE_CONNECTIONS:
            connection.close()
            return
        connection.idle_since = time.monotonic()
        idle.append(connection)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(MAX_IDLE_SECONDS, self._sweep)

    async def aclose(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _take(self, origin: Origin) -> HttpConnection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_open and not _is_stale(connection):
                return connection
            connection.close()
        return None

    async def _connect(self, origin: Origin, timeout_seconds: float) -> HttpConnection:
        scheme, host, port = origin
        loop = asyncio.get_running_loop()
        tls = self._tls if scheme == "https" else None
        try:
            async with asyncio.timeout(timeout_seconds):
                opened = await _open_socket(host, port)
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(loop), sock=opened, ssl=tls, server_hostname=host if tls else None
                )
        except TimeoutError:
            raise httpx.ConnectTimeout(f"No connection within {timeout_seconds:g} s.") from None
        except (OSError, ValueError, OverflowError) as error:  # Of a name or a port that cannot be one, too.
            if isinstance(error, OSError) and is_lacking_here(error):
                raise NoRoomError(f"No connection could be opened: {error}") from error
            raise httpx.ConnectError(str(error)) from error
        return connection

    def _sweep(self) -> None:
        """Close what has been idle for long, so that nothing is kept that no call comes by to close."""
        self._sweeping = None
        for origin, connections in list(self._idle.items()):
            kept = []
            for connection in connections:
                if connection.is_open and not _is_stale(connection):
                    kept.append(connection)
                else:
                    connection.close()
            if kept:
                self._idle[origin] = kept
            else:
                del self._idle[origin]
        if self._idle:
            self._sweeping = asyncio.get_running_loop().call_later(MAX_IDLE_SECONDS, self._sweep)


class AnswerStream(httpx.AsyncByteStream):
    """The body of an answer. `aclose()` hands the connection back, or closes it when there was more to come."""

    __slots__ = ("_connection", "_is_closed", "_origin", "_timeout_seconds", "_transport")

    def __init__(
        self, connection: HttpConnection, transport: UpstreamTransport, origin: Origin, *, timeout_seconds: float
    ) -> None:
        self._connection = connection
        self._transport = transport
        self._origin = origin
        self._timeout_seconds = timeout_seconds
        self._is_closed = False

    async def next_chunk(self, *, timeout_seconds: float) -> bytes | None:
        """Return the next bytes, None at the end. Raises httpx.TransportError; after a time-out it may be called
        again.
        """
        return await self._connection.next_chunk(timeout_seconds=timeout_seconds)

    def interrupt(self) -> None:
        """Let whoever waits for the next bytes get httpx.ReadError."""
        self._connection.interrupt(httpx.ReadError("The gateway stopped reading the answer."))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self.next_chunk(timeout_seconds=self._timeout_seconds)) is not None:
            yield chunk

    async def aclose(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._transport.take_back(self._connection, self._origin)


async def _open_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is connected to one of the host's addresses. Raises OSError.

    All are tried, a little apart: where one of the two internets is broken the other does not wait for it.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = allowed_addresses(host, list(found))
    opened = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS, interleave=1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A model may think for minutes without a word, and what lies between us may forget the connection meanwhile.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
    return opened


def render_head(request: httpx.Request, body_bytes: int) -> bytes:
    """Return request line and headers as they are sent. Raises httpx.LocalProtocolError for what is no header."""
    url = request.url
    lines = [
        b"%b %b HTTP/1.1\r\nhost: %b\r\ncontent-length: %d"
        % (request.method.encode(), url.raw_path, url.netloc, body_bytes)
    ]
    lines += [b"%b: %b" % pair for pair in request.headers.raw]
    head = b"\r\n".join(lines)
    # Whoever put a line break into a value would write headers, or a request, of their own.
    line_ends = len(lines) + 1
    if head.count(b"\n") != line_ends or head.count(b"\r") != line_ends or b"\x00" in head:
        raise httpx.LocalProtocolError("A header has a line break or NUL in it.")
    return head + b"\r\n\r\n"


def _origin_of(url: httpx.URL) -> Origin:
    if url.scheme not in ("http", "https"):
        raise httpx.UnsupportedProtocol(f"{url.scheme!r} is neither http nor https.")
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _is_stale(connection: HttpConnection) -> bool:
    return time.monotonic() - connection.idle_since > MAX_IDLE_SECONDS
