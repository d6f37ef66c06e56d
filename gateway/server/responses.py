"""Answers of the request path, and the relay: an answer that writes itself while its upstream is still speaking."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
from django.http.response import HttpResponseBase

SendChunk = Callable[[bytes], Awaitable[None]]
JSON_CONTENT_TYPE = "application/json"
EVENT_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # nginx would hold events back otherwise.
}


class GatewayResponse(HttpResponseBase):
    """An answer of JSON: `status_code`, `body` and `plain_headers`, whose names are lower case.

    Made without Django's own constructor, which checks headers at length that are ours, and costs a tenth of a request.
    """

    def __init__(self, body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.body = body
        self.status_code = status
        self.plain_headers = {"content-type": JSON_CONTENT_TYPE, **(headers or {})}


class RelayResponse(GatewayResponse):
    """Its headers are known; its body is written by `relay`, which runs to the end whatever the client does.

    `relay` is cancelled when the client leaves, and then still decides what is billed.
    """

    def __init__(self, relay: Callable[[SendChunk], Awaitable[None]], headers: Mapping[str, str]) -> None:
        super().__init__(b"", headers=headers)
        self.relay = relay


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> GatewayResponse:
    return GatewayResponse(orjson.dumps(value), status=status, headers=headers)
