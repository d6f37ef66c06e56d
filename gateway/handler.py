"""The lean ASGI handler of `/v1/`: Django's request, URL map and async views, without what costs most around them.

Django's own ASGI handler gives each request a thread context, signals and a middleware chain: 1.7 ms of CPU for a
constant answer, against 0.25 ms here (docs/architecture.md). Pages and `/api/` keep using Django's.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from io import BytesIO
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.http import HttpResponse
from django.urls import Resolver404
from django.urls.resolvers import URLResolver

from billing.request_id import REQUEST_PREFIX, make_request_id
from gateway.errors import GatewayError, render_error
from gateway.metering import MeteredRequest
from gateway.request_log import log_request
from gateway.responses import GatewayResponse, RelayResponse

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_LENGTH_DIGITS = 19

logger = logging.getLogger(__name__)


class GatewayRequest(ASGIRequest):
    """Django's request with the body already read, and the id that this request has everywhere."""

    request_id: str
    metered: MeteredRequest | None = None  # Once it is admitted.

    def _set_content_type_params(self, meta: Mapping[str, str]) -> None:
        """Read nothing: bodies here are JSON whatever their content-type says, and Django raises for odd ones."""

    @property
    def request_header(self) -> str:
        return REQUEST_PREFIX + self.request_id


class ClientLeftError(Exception):
    """The client closed the connection before its request was here."""


class LeanHandler:
    """Every answer, also an error, is JSON in the documented form and carries `request-id`."""

    def __init__(self, resolver: URLResolver, *, max_body_bytes: int) -> None:
        self._resolver = resolver
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
        work = asyncio.ensure_future(self._serve(scope, body, request_id, send))
        departure = asyncio.ensure_future(_wait_for_departure(receive))
        await asyncio.wait((work, departure), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
        else:
            departure.cancel()
        try:
            await work
        except asyncio.CancelledError:
            if not departure.done():
                raise  # It is this process that stops, not the client that left.

    async def _serve(self, scope: Scope, body: bytes, request_id: str, send: Send) -> None:
        started = time.monotonic()
        request = GatewayRequest(scope, BytesIO(body))
        request._body = body
        request.request_id = request_id
        try:
            response = await self._respond(request, scope["path"])
        except GatewayError as error:
            response = _error_response(error, request_id)
        except Exception:
            logger.exception("Request %s failed.", request_id)
            response = _error_response(GatewayError(500, "internal_error", "An internal error occurred."), request_id)
        try:
            await send_response(send, response, request_id)
        finally:
            log_request(
                method=scope["method"],
                path=scope["path"],
                status=response.status_code,
                duration_ms=(time.monotonic() - started) * 1000,
                request_id=request_id,
                metered=request.metered,
            )

    async def _respond(self, request: GatewayRequest, path: str) -> HttpResponse:
        try:
            match = self._resolver.resolve(path)
        except Resolver404:
            raise GatewayError(404, "not_found", f"There is no {path} here.") from None
        response: HttpResponse = await match.func(request, **match.kwargs)
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


async def _wait_for_departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _error_response(error: GatewayError, request_id: str) -> HttpResponse:
    body = render_error(error.status, error.code, error.message, REQUEST_PREFIX + request_id)
    return GatewayResponse(body, status=error.status, headers=error.response_headers())


async def send_response(send: Send, response: HttpResponse, request_id: str) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.items()]
    headers.append((b"request-id", (REQUEST_PREFIX + request_id).encode()))
    if isinstance(response, RelayResponse):
        await _relay(send, response, headers)
        return
    headers.append((b"content-length", str(len(response.content)).encode()))
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})


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

    await response.relay(send_chunk)
    await send({"type": "http.response.body", "body": b""})
