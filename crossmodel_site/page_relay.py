"""Passes what is asked of pages on to the process that makes them, over a Unix socket: no page holds up a stream then.

The body is read within its bounds here, and the answer goes on piece by piece as the client takes it. A connection to
the other process serves one request: on one machine it costs less than to find out whether a kept one still stands.
"""

import logging

from crossmodel_site.page_bodies import (
    BodyRefusedError,
    ClientLeftError,
    Receive,
    Scope,
    Send,
    read_body,
    send_refusal,
)
from crossmodel_site.page_threads import MAX_PAGE_SECONDS, MAX_WAIT_SECONDS
from gateway.http.errors import UpstreamError
from gateway.http.socket_call import SocketCall
from gateway.http_protocol import abort_of
from gateway.server.stalled_client import ClientStalledError, StalledClientTimer

MAX_RELAYED = 500  # At once. Each may keep a body of page_bodies.MAX_BODY_BYTES.
# The other process gives up first, and says why.
ANSWER_SECONDS = MAX_PAGE_SECONDS + MAX_WAIT_SECONDS + 5.0
# A client that reads nothing for so long has left: some hundreds of them would keep all others from every page.
STALL_SECONDS = 60.0
# Of one hop (RFC 9110, 7.6.1), or written here anew.
NOT_PASSED_ON = frozenset(
    {b"connection", b"keep-alive", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"content-length", b"expect"}
)
NOT_PASSED_BACK = NOT_PASSED_ON - {b"content-length"}
FORWARDED_FOR = b"x-forwarded-for"

logger = logging.getLogger(__name__)


class PageRelay:
    """An ASGI application. `path` is the socket of the process that makes pages."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._running >= MAX_RELAYED:
            text = "Too many pages are asked for at once. Please try again in a few seconds."
            await send_refusal(scope, send, status=503, code="pages_busy", text=text, retry_after=2)
            return
        self._running += 1
        try:
            whole = await read_body(scope, receive)
            body = (await whole())["body"]
            await self._relay(scope, body, send)
        except ClientLeftError:
            return
        except BodyRefusedError as error:
            await send_refusal(scope, send, status=error.status, code=error.code, text=str(error))
        finally:
            self._running -= 1

    async def _relay(self, scope: Scope, body: bytes, send: Send) -> None:
        try:
            call = await SocketCall.start(
                self._path, render_head(scope, len(body)), body, timeout_seconds=ANSWER_SECONDS
            )
        except UpstreamError as error:
            logger.warning("The page %s was not made: %s", scope["path"], error)
            text = "Pages are away for a moment. Please try again in a few seconds."
            await send_refusal(scope, send, status=503, code="pages_unavailable", text=text, retry_after=2)
            return
        try:
            await _pass_back(call, scope, send)
        except UpstreamError as error:
            # Half of it is with the client: the server sees that the rest is missing and closes.
            logger.warning("The page %s was cut: %s", scope["path"], error)
        except ClientStalledError:
            abort_of(scope)()
        finally:
            call.close()


def render_head(scope: Scope, body_bytes: int) -> bytes:
    """Return the request as the other process gets it; the address that the client came from is the last one named."""
    # The answer to HEAD says how long a body is that does not follow, which the parser waits for: GET says the same.
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    target = scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")
    headers = [(name, value) for name, value in scope["headers"] if name not in NOT_PASSED_ON]
    client = scope.get("client")
    headers.append((FORWARDED_FOR, str(client[0]).encode() if client else b"unknown"))
    headers += [(b"content-length", b"%d" % body_bytes), (b"connection", b"close")]
    version = b"1.1" if any(name == b"host" for name, _ in headers) else b"1.0"  # Only that may name no host.
    lines = [b"%b %b HTTP/%b" % (method.encode(), target, version), *(b"%b: %b" % pair for pair in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def with_true_client(scope: Scope) -> Scope:
    """Return the scope of a request that a gateway passed on, as if its client had come here itself."""
    headers = list(scope["headers"])
    for place in range(len(headers) - 1, -1, -1):
        if headers[place][0] == FORWARDED_FOR:
            client = headers.pop(place)[1].decode("latin-1")
            return {**scope, "headers": headers, "client": None if client == "unknown" else (client, 0)}
    return scope


async def _pass_back(call: SocketCall, scope: Scope, send: Send) -> None:
    """Raises UpstreamError, ClientStalledError."""
    headers = [(name, value) for name, value in call.headers if name not in NOT_PASSED_BACK]
    await send({"type": "http.response.start", "status": call.status, "headers": headers})

    async def send_chunk(chunk: bytes) -> None:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})

    watch = StalledClientTimer(send_chunk, stall_seconds=STALL_SECONDS)
    try:
        if scope["method"] != "HEAD":
            while (chunk := await call.next_chunk()) is not None:
                await watch.send(chunk)
    finally:
        watch.stop()
    await send({"type": "http.response.body", "body": b""})
