"""One HTTP request to an address that is resolved once, judged, and then called itself.

Whoever names a URL chooses what its name resolves to, and may change that at any time. So the name is asked once, each
address that comes is judged (billing/network_addresses.py), and the connection goes to the address that was judged; the
name serves TLS and the Host header alone. Redirects are not followed. The time for all of it is bounded, and so is what
is read of the answer, however slowly it comes.
"""

import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from billing.network_addresses import is_reachable

RESOLVE_SECONDS = 5.0
# Whose name server is silent is left, but the system's resolver cannot be stopped: it goes on for half a minute or so.
MAX_LOOKUPS = 256
CONNECT_SECONDS = 5.0  # To each address.
MAX_ADDRESSES_TRIED = 3
DEFAULT_PORTS = {"http": 80, "https": 443}

AddressInfo = tuple[Any, ...]
_lookups = threading.BoundedSemaphore(MAX_LOOKUPS)
Resolve = Callable[[str, int], Sequence[AddressInfo]]


class NoAnswerError(Exception):
    """There is no answer; the text says why, in a sentence for whoever named the URL."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where a request may go beside public addresses, how long it may take, the look at its name included, and how many
    bytes of the answer's body are read. No more is read, and the connection is closed.
    """

    networks: tuple[str, ...]
    total_seconds: float
    max_answer_bytes: int


def exchange(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    body: bytes = b"",
    bounds: Bounds,
    resolve: Resolve | None = None,
) -> tuple[int, bytes]:
    """Return status and body of the answer, whichever they are. Raises NoAnswerError."""
    try:
        return _exchange(method, url, headers, body, bounds, resolve or _resolve)
    except TimeoutError:
        raise NoAnswerError(f"There was no whole answer within {bounds.total_seconds:g} seconds.") from None
    except ssl.SSLError as error:
        raise NoAnswerError(f"TLS failed: {error.reason or error}.") from error
    except (OSError, HTTPException, ValueError) as error:
        raise NoAnswerError(f"The connection failed: {error or type(error).__name__}.") from error


def _exchange(
    method: str, url: str, headers: Mapping[str, str], body: bytes, bounds: Bounds, resolve: Resolve
) -> tuple[int, bytes]:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
    ends_at = time.monotonic() + bounds.total_seconds
    addresses = _judged(host, _ask(resolve, host, port, _left(ends_at)), bounds.networks)
    connection = _connect(addresses, ends_at)
    with connection:
        if parts.scheme == "https":
            connection.settimeout(_left(ends_at))
            connection = _tls().wrap_socket(connection, server_hostname=host)
        with connection:
            connection.settimeout(_left(ends_at))
            target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
            connection.sendall(_render(method, parts.netloc, target, headers, body))
            return _read_answer(connection, ends_at, method, bounds.max_answer_bytes)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _resolve(host: str, port: int) -> Sequence[AddressInfo]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)


def _ask(resolve: Resolve, host: str, port: int, seconds_left: float) -> Sequence[AddressInfo]:
    """Return the addresses of a name. Asked in a thread of its own, because nothing else bounds how long it takes."""
    if not _lookups.acquire(blocking=False):
        raise NoAnswerError(f"The name {host} was not looked up: too many others are waited for.")
    found: Future[Sequence[AddressInfo]] = Future()

    def look_up() -> None:
        try:
            found.set_result(resolve(host, port))
        except BaseException as error:
            found.set_exception(error)
        finally:
            _lookups.release()

    threading.Thread(target=look_up, name="lookup", daemon=True).start()
    try:
        return found.result(min(RESOLVE_SECONDS, seconds_left))
    except TimeoutError:
        raise NoAnswerError(f"The name {host} was not resolved in time.") from None
    except (OSError, UnicodeError) as error:
        raise NoAnswerError(f"The name {host} cannot be resolved: {error}.") from None


def _judged(host: str, found: Sequence[AddressInfo], networks: tuple[str, ...]) -> list[AddressInfo]:
    """Return the addresses that may be called. One that may not spoils all: a name leads to the public or not."""
    if not found or not all(is_reachable(str(info[4][0]), networks) for info in found):
        raise NoAnswerError(f"The name {host} leads to an address that is not public.")
    return list(found[:MAX_ADDRESSES_TRIED])


def _connect(addresses: Sequence[AddressInfo], ends_at: float) -> socket.socket:
    """Return a socket that is connected to one of the addresses, and to no other. Raises OSError."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(min(CONNECT_SECONDS, _left(ends_at)))
            connection.connect(address)
        except OSError as error:
            connection.close()
            failure = error
        else:
            return connection
    raise NoAnswerError(f"No connection could be made: {failure}.")


def _render(method: str, netloc: str, target: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return the request. Raises ValueError for what would write a header, or a request, of its own."""
    lines = [
        f"{method} {target} HTTP/1.1",
        f"host: {netloc}",
        f"content-length: {len(body)}",
        "accept-encoding: identity",
        "connection: close",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    if not all(line.isprintable() for line in lines) or " " in target:
        raise ValueError("the request has a control character or a space in it")
    return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n" + body


def _read_answer(connection: socket.socket, ends_at: float, method: str, max_bytes: int) -> tuple[int, bytes]:
    reader = io.BufferedReader(_BoundedReader(connection, ends_at))
    response = HTTPResponse(_OneReader(reader), method=method)  # type: ignore[arg-type]  # It only makes a file of it.
    response.begin()
    return response.status, response.read(max_bytes)


def _left(ends_at: float) -> float:
    """Return the seconds that are left. Raises TimeoutError when none is."""
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


class _BoundedReader(io.RawIOBase):
    """Reads a socket until a time, which is that of all reads together."""

    def __init__(self, connection: socket.socket, ends_at: float) -> None:
        self._connection = connection
        self._ends_at = ends_at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._ends_at))
        return self._connection.recv_into(buffer)


class _OneReader:
    """What HTTPResponse takes for a socket."""

    def __init__(self, reader: io.BufferedReader) -> None:
        self._reader = reader

    def makefile(self, mode: str) -> io.BufferedReader:
        return self._reader
