"""What may be sent to pages, `/api/` and probes: forms and small JSON. More is refused before it is kept anywhere."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from billing.request_id import REQUEST_PREFIX, make_request_id
from gateway.errors import render_error

MAX_BODY_BYTES = 1024 * 1024
MAX_BODY_SECONDS = 30.0
MAX_LENGTH_DIGITS = 19

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BodyRefusedError(Exception):
    """The body is too long or comes too slowly."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


class ClientLeftError(Exception):
    """The client closed the connection before its request was here."""


async def read_body(scope: Scope, receive: Receive) -> Receive:
    """Read the whole body within its bounds and return a `receive` that gives it.

    Raises BodyRefusedError, ClientLeftError.
    """
    too_large = BodyRefusedError(413, "request_too_large", f"The request is larger than {MAX_BODY_BYTES // 1024} KiB.")
    for name, value in scope["headers"]:
        if name == b"content-length" and (len(value) > MAX_LENGTH_DIGITS or int(value) > MAX_BODY_BYTES):
            raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(MAX_BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientLeftError
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    raise too_large
                if not message.get("more_body", False):
                    break
    except TimeoutError:
        raise BodyRefusedError(408, "request_timeout", "The request took too long to arrive.") from None
    whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

    async def receive_whole() -> Message:
        return whole.pop() if whole else await receive()

    return receive_whole


async def send_refusal(scope: Scope, send: Send, *, status: int, code: str, text: str, retry_after: int = 0) -> None:
    """Answer in the form of where it was sent to: JSON below `/api/`, one line elsewhere. The connection is closed."""
    request_id = REQUEST_PREFIX + make_request_id().hex
    if scope["path"].startswith("/api/"):
        kind = b"application/json"
        body = render_error(status, code, text, request_id)
    else:
        kind, body = b"text/plain; charset=utf-8", text.encode() + b"\n"
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), (b"request-id", request_id.encode())]
    headers += [(b"cache-control", b"no-store"), (b"connection", b"close")]
    if retry_after:
        headers.append((b"retry-after", b"%d" % retry_after))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
