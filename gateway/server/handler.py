"""The lean ASGI handler of `/v1/`: Django's request, URL map and async views, without what costs most around them.

Django's own ASGI handler gives each request a thread context, signals and a middleware chain: 1.7 ms of CPU for a
constant answer, against 0.25 ms here (docs/architecture.md). Pages and `/api/` keep using Django's.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any, cast

from django.core.exceptions import SuspiciousOperation
from django.core.handlers.asgi import ASGIRequest
from django.urls import Resolver404
from django.urls.resolvers import URLResolver

from billing.request_id import REQUEST_PREFIX, make_request_id
from gateway.authentication import KeyIdentity
from gateway.errors import STOPPING_CODE, GatewayError, render_error, stopping
from gateway.http_protocol import abort_of, write_whole
from gateway.metering.metered_request import MeteredRequest
from gateway.metering.request_log import log_request, shown_path, why_refused
from gateway.metrics import count_answer
from gateway.server.browsers import headers_for_browsers, is_preflight, preflight_headers
from gateway.server.request_body import BodyReader, BodyRoom, ClientLeftError
from gateway.server.responses import GatewayResponse, RelayResponse
from gateway.server.stalled_client import ClientStalledError
from gateway.tracing import begin_trace

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

NO_CONTENT = 204
MAX_PATH_CHARS_SHOWN = 200
REPEATED_VERSION = re.compile(r"^((api/)?v1/)+")
# What paths of the management API begin with, so that whoever asks the gateway for one is told where it is. Its own
# URL map is not asked: loading it would stop everybody's requests for a moment.
MANAGED = frozenset(
    [
        "activity",
        "alert-settings",
        "alerts",
        "automatic-top-up",
        "budget-overrides",
        "budgets",
        "credits",
        "documents",
        "estimate",
        "generation",
        "invitations",
        "key",
        "keys",
        "limits",
        "members",
        "prices",
        "statements",
        "top-ups",
        "webhooks",
    ]
)
MAX_KNOWN_HEADERS = 1_000
MAX_KNOWN_PATHS = 1_000

logger = logging.getLogger(__name__)


class GatewayRequest(ASGIRequest):
    """Django's request with the id that it has everywhere; its body is received once the key is known.

    Made without Django's own constructor, which costs more than all that the gateway asks of a request: what is not
    set here (files, cookies, the content-type's charset) is not there. `META` holds the headers under Django's names,
    REMOTE_ADDR and QUERY_STRING.
    """

    def __init__(self, scope: Scope, reader: BodyReader, request_id: str, watch: "DisconnectWatcher") -> None:
        self.scope = scope
        self.method = scope["method"]
        self.path = self.path_info = scope["path"]
        self.META = read_meta(scope)
        self.request_id = request_id
        self.watch = watch
        self.metered: MeteredRequest | None = None  # Once it is admitted.
        self.identity: KeyIdentity | None = None  # Once its key is known.
        self.trace = begin_trace(self.META)
        # What the client wrote, once that is known.
        self.model_name = self.end_user = self.session_in_body = ""
        self._body = b""
        self._reader = reader

    @property
    def request_header(self) -> str:
        return REQUEST_PREFIX + self.request_id

    async def receive_body(self, room: BodyRoom, organization_id: int) -> int:
        """Receive the body for a key that is known, and return its bytes. Raises GatewayError, ClientLeftError."""
        self._body = await self._reader.read(room, organization_id)
        return len(self._body)

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


class DisconnectWatcher:
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
        """Watch no longer. What was cancelled keeps its traceback, and with that this request: it is let go of."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None

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
        watch = DisconnectWatcher(receive)
        reader = BodyReader(scope["headers"], receive, max_bytes=self._max_body_bytes)
        try:
            await self._serve(GatewayRequest(scope, reader, make_request_id().hex, watch), reader, send)
        except ClientLeftError:
            return
        except asyncio.CancelledError:
            if not watch.has_left:
                raise  # It is this process that stops, and cannot even say so any more.
            cast("asyncio.Task[None]", asyncio.current_task()).uncancel()
        finally:
            watch.stop()
            reader.close()

    async def _serve(self, request: GatewayRequest, reader: BodyReader, send: Send) -> None:
        started, code, why = time.monotonic(), "", ""
        try:
            response = await self._respond(request)
        except ClientLeftError:
            raise
        except GatewayError as error:
            response, code, why = _error_response(error, request.request_id), error.code, why_refused(error)
        except asyncio.CancelledError:
            if request.watch.has_left:
                raise
            cast("asyncio.Task[None]", asyncio.current_task()).uncancel()  # This process stops: the client is told.
            response, code = _error_response(stopping(), request.request_id), STOPPING_CODE
        except Exception:
            logger.exception("Request %s failed.", request.request_id)
            failure = GatewayError(500, "internal_error", "An internal error occurred.")
            response, code = _error_response(failure, request.request_id), failure.code
        extra = headers_for_browsers(request.scope["headers"])
        if reader.is_waited_for:
            extra.append((b"connection", b"close"))  # It may be sent all the same, or never.
        reader.close()
        try:
            await send_response(send, response, request.request_id, extra, abort=abort_of(request.scope))
        finally:
            seconds = time.monotonic() - started
            count_answer(request.path, response.status_code, code, seconds, request.metered)
            log_request(
                method=request.method,
                path=request.path,
                status=response.status_code,
                duration_ms=seconds * 1000,
                request_id=request.request_id,
                metered=request.metered,
                identity=request.identity,
                code=code,
                why=why,
                trace_id=request.trace.trace_id if request.trace is not None else "",
            )
            if request.trace is not None:
                request.trace.finish(
                    method=request.method,
                    path=shown_path(request.path),
                    status=response.status_code,
                    code=code,
                    request_id=request.request_id,
                    metered=request.metered,
                )

    async def _respond(self, request: GatewayRequest) -> GatewayResponse:
        if request.method == "OPTIONS" and is_preflight(request.scope["headers"]):
            return answer_preflight(request)
        try:
            match = self._resolve(request.path)
        except Resolver404:
            raise GatewayError(404, "not_found", describe_missing(request.path, self._resolve)) from None
        try:
            response: GatewayResponse = await match.func(request, **match.kwargs)
        except SuspiciousOperation:  # Django's word for more parameters than anybody reads.
            raise GatewayError(400, "bad_request", "The request cannot be read.") from None
        return response


def answer_preflight(request: GatewayRequest) -> GatewayResponse:
    """Answer a browser that asks whether an app may call us. Raises GatewayError 403 for an origin that may not."""
    headers = preflight_headers(request.scope["headers"])
    if not headers:
        raise GatewayError(
            403,
            "origin_not_allowed",
            "Browser apps from this origin may not call this API (CROSSMODEL_BROWSER_ORIGINS).",
        )
    known = {b"access-control-allow-origin", b"access-control-expose-headers", b"vary"}  # The handler adds these.
    shown = {name.decode(): value.decode("latin-1") for name, value in headers if name not in known}
    return GatewayResponse(b"", status=204, headers=shown)


def describe_missing(path: str, resolve: Callable[[str], Any]) -> str:
    """Return what is told of a path that is none; where it is plain what was meant, that too."""
    said = path if len(path) <= MAX_PATH_CHARS_SHOWN else path[:MAX_PATH_CHARS_SHOWN] + "..."
    meant = "/" + REPEATED_VERSION.sub("v1/", re.sub(r"/+", "/", path).strip("/").lower())
    for candidate in (meant, "/v1" + meant):
        with contextlib.suppress(Resolver404):
            resolve(candidate)
            return f"There is no {said} here. Did you mean {candidate}? A client's base URL ends before /v1."
    below = meant.removeprefix("/v1/")
    if below.partition("/")[0] in MANAGED and len(below) <= MAX_PATH_CHARS_SHOWN:
        return f"There is no {said} here. Did you mean /api/v1/{below}?"
    return f"There is no {said} here."


def _error_response(error: GatewayError, request_id: str) -> GatewayResponse:
    body = render_error(error.status, error.code, error.message, REQUEST_PREFIX + request_id, error.details)
    return GatewayResponse(body, status=error.status, headers=error.response_headers())


async def send_response(
    send: Send,
    response: GatewayResponse,
    request_id: str,
    extra: list[tuple[bytes, bytes]],
    *,
    abort: Callable[[], None] = lambda: None,
) -> None:
    """Send the answer. `abort` lets go of the connection, where the server has a word for that."""
    headers = [(name.encode(), value.encode("latin-1")) for name, value in response.plain_headers.items()]
    headers += extra
    headers.append((b"request-id", (REQUEST_PREFIX + request_id).encode()))
    if isinstance(response, RelayResponse):
        await _relay(send, response, headers, abort)
        return
    if response.status_code != NO_CONTENT:
        headers.append((b"content-length", b"%d" % len(response.body)))
        if write_whole(send, response.status_code, headers, response.body):
            return
    await send({"type": "http.response.start", "status": response.status_code, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _relay(
    send: Send, response: RelayResponse, headers: list[tuple[bytes, bytes]], abort: Callable[[], None]
) -> None:
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
        abort()
        return
    await send({"type": "http.response.body", "body": b""})
