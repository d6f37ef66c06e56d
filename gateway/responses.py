"""Answers of the request path, and the relay: an answer that writes itself while its upstream is still speaking."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from django.http import HttpResponse

SendChunk = Callable[[bytes], Awaitable[None]]
JSON_CONTENT_TYPE = "application/json"
EVENT_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would hold events back otherwise.
}


class GatewayResponse(HttpResponse):
    """An answer with plain header pairs: Django's own header handling is not needed on the request path."""

    def __init__(self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(body, status=status, content_type=JSON_CONTENT_TYPE)
        for name, value in (headers or {}).items():
            self[name] = value


class RelayResponse(HttpResponse):
    """Its headers are known; its body is written by `relay`, which runs to the end whatever the client does.

    `relay` is cancelled when the client leaves, and then still decides what is billed.
    """

    def __init__(self, relay: Callable[[SendChunk], Awaitable[None]], headers: Mapping[str, str]) -> None:
        super().__init__(status=200)
        del self["content-type"]
        for name, value in headers.items():
            self[name] = value
        self.relay = relay


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> GatewayResponse:
    return GatewayResponse(orjson.dumps(value), status=status, headers=headers)
