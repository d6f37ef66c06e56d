"""The lean ASGI handler of `/v1/`: Django's request, URL map and async views, without what costs most around them.

Django's own ASGI handler gives each request a thread context, signals and a middleware chain: 1.7 ms of CPU for a
constant answer, against 0.25 ms here (docs/architecture.md). Pages and `/api/` keep using Django's.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any, cast

from django.core.handlers.asgi import ASGIRequest
from django.urls import Resolver404
from django.urls.resolvers import URLResolver

from billing.request_id import REQUEST_PREFIX, make_request_id
from gateway.client_stall import ClientStalledError
from gateway.errors import GatewayError, render_error
from gateway.metering import MeteredRequest
from gateway.request_log import log_request
from gateway.responses import GatewayResponse, RelayResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_LENGTH_DIGITS = 19
MAX_KNOWN_HEADERS = 1_000
MAX_KNOWN_PATHS = 1_000

logger = logging.getLogger(__name__)


class GatewayRequest(ASGIRequest):
    """Django's request with the body already read, and the id that this request has everywhere.

    Made without Django's own constructor, which costs more than all that the gateway asks of a request: what is not
    set here (files, cookies, the content-type's charset) is not there. `META` holds the headers under Django's names,
    REMOTE_ADDR and QUERY_STRING.
    """

    def __init__(self, scope: Scope, body: bytes, request_id: str, watch: "ClientWatch") -> None:
        self.scope = scope
        self.method = scope["method"]
        self.path = self.path_info = scope["path"]
        self.META = read_meta(scope)
        self.request_id = request_id
        self.watch = watch
        self.metered: MeteredRequest | None = None  # Once it is admitted.
        self._body = body

    @property
    def request_header(self) -> str:
        return REQUEST_PREFIX + self.request_id

    def take_body(self) -> bytes:
        """Return the body and let go of it: a request lasts as long as its answer, which may be many minutes."""
        body, self._body = self._body, b""
        return body


def read_meta(scope: Scope) -> dict[str, Any]:
    """Return what a request says of itself under the names of Django's META; a header that comes twice is joined."""
    client = scope.get("client")
    meta = {"QUERY_STRING": scope["query_string"].decode("latin-1"), "REMOTE_ADDR": client[0] if client else ""}
    for name, value in scope["headers"]:
        key = _meta_key(name)
        if key:
            text = value.decode("latin-1")
            meta[key] = f"{meta[key]},{text}" if key in meta else text
    return meta


@lru_cache(maxsize=MAX_KNOWN_HEADERS)
def _meta_key(name: bytes) -> str:
    """Return Django's name of a header; "" for one with an underscore, which could pass for another."""
    text = name.decode("latin-1")
    return "" if "_" in text else "HTTP_" + text.upper().replace("-", "_")


class ClientLeftError(Exception):
    """The client closed the connection before its request was here."""


class ClientWatch:
    """Notices that the client of one request leaves, from the moment that somebody asks."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._watching: asyncio.Task[None] | asyncio.TimerHandle | None = None
        self.has_left = False

    def start(self, on_departure: Callable[[], object]) -> None:
        """Call `on_departure` once, when the client has left before the answer was whole."""
        self._watching = asyncio.get_running_loop().create_task(self._watch(on_departure))

    def start_later(self, seconds: float, on_departure: Callable[[], object]) -> None:
        """The same, looking only after a while: what is answered by then needs no watch."""
        self._watching = asyncio.get_running_loop().call_later(seconds, self.start, on_departure)

    def cancel_on_departure(self) -> None:
        """Cancel the task that serves the request when the client leaves. The handler knows that it was meant."""
        self.start(cast("asyncio.Task[None]", asyncio.current_task()).cancel)

    def stop(self) -> None:
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self, on_departure: Callable[[], object]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_left = True
        on_departure()


class LeanHandler:
    """Every answer, also an error, is JSON in the documented form and carries `request-id`."""

    def __init__(self, resolver: URLResolver, *, max_body_bytes: int) -> None:
        # Paths are few, and finding the view of one costs as much as asking Redis.
        self._resolve = lru_cache(maxsize=MAX_KNOWN_PATHS)(resolver.resolve)
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = make_request_id().hex
        try:
            body = await self._read_body(scope, receive)
        except ClientLeftError:
            return
        except GatewayError as error:
            await send_response(send, _error_response(error, request_id), request_id)
            return
        watch = ClientWatch(receive)
        try:
            await self._serve(GatewayRequest(scope, body, request_id, watch), send)
        except asyncio.CancelledError:
            if not watch.has_left:
                raise  # It is this process that stops, not the client that left.
            cast("asyncio.Task[None]", asyncio.current_task()).uncancel()
        finally:
            watch.stop()

    async def _serve(self, request: GatewayRequest, send: Send) -> None:
        started = time.monotonic()
        try:
            response = await self._respond(request)
        except GatewayError as error:
            response = _error_response(error, request.request_id)
        except Exception:
            logger.exception("Request %s failed.", request.request_id)
            failure = GatewayError(500, "internal_error", "An internal error occurred.")
            response = _error_response(failure, request.request_id)
        try:
            await send_response(send, response, request.request_id)
        finally:
            log_request(
                method=request.method,
                path=request.path,
                status=response.status_code,
                duration_ms=(time.monotonic() - started) * 1000,
                request_id=request.request_id,
                metered=request.metered,
            )

    async def _respond(self, request: GatewayRequest) -> GatewayResponse:
        try:
            match = self._resolve(request.path)
        except Resolver404:
            raise GatewayError(404, "not_found", f"There is no {request.path} here.") from None
        response: GatewayResponse = await match.func(request, **match.kwargs)
        return response

    async def _read_body(self, scope: Scope, receive: Receive) -> bytes:
        for name, value in scope["headers"]:
            # More digits than any length has are not worth reading; Python refuses to read thousands of them.
            if name == b"content-length" and (len(value) > MAX_LENGTH_DIGITS or int(value) > self._max_body_bytes):
                raise self._too_large()
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            part = message.get("body", b"")
            size += len(part)
            if size > self._max_body_bytes:
                raise self._too_large()
            parts.append(part)
            if not message.get("more_body", False):
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self) -> GatewayError:
        limit = self._max_body_bytes // 1024**2
        return GatewayError(413, "request_too_large", f"The request is larger than {limit} MiB.")


def _error_response(error: GatewayError, request_id: str) -> GatewayResponse:
    body = render_error(error.status, error.code, error.message, REQUEST_PREFIX + request_id, error.details)
    return GatewayResponse(body, status=error.status, headers=error.response_headers())


async def send_response(send: Send, response: GatewayResponse, request_id: str) -> None:
    headers = [(name.encode(), value.encode("latin-1")) for name, value in response.plain_headers.items()]
    headers.append((b"request-id", (REQUEST_PREFIX + request_id).encode()))
    if isinstance(response, RelayResponse):
        await _relay(send, response, headers)
        return
    headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _relay(send: Send, response: RelayResponse, headers: list[tuple[bytes, bytes]]) -> None:
    """Let the response write itself. The headers go out with its first chunk: a client that leaves in between must
    find the relay running, which decides what is billed.
    """
    has_started = False

    async def send_chunk(chunk: bytes) -> None:
        nonlocal has_started
        if not has_started:
            has_started = True
            await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": chunk, "more_body": True})

    try:
        await response.relay(send_chunk)
    except ClientStalledError:
        _abort(send)
        return
    await send({"type": "http.response.body", "body": b""})


def _abort(send: Send) -> None:
    """Let go of a connection whose client reads nothing. ASGI has no word for it, and a server that closes in order
    would wait for ever for what it has buffered to be read.
    """
    abort = getattr(getattr(getattr(send, "__self__", None), "transport", None), "abort", None)
    if abort is not None:
        abort()
