"""Errors as clients of the API see them: the documented envelope, its types and status codes.

Source: the error table of the Messages API reference. `code` is a stable machine word of ours; texts may change, codes
do not.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from gateway.protocol.errors import InvalidRequestError

INVALID_REQUEST, AUTHENTICATION, PERMISSION = "invalid_request_error", "authentication_error", "permission_error"
RATE_LIMIT, API, OVERLOADED = "rate_limit_error", "api_error", "overloaded_error"
REQUEST_TOO_LARGE = "request_too_large"
TYPE_BY_STATUS = {
    400: INVALID_REQUEST,
    401: AUTHENTICATION,
    402: PERMISSION,
    403: PERMISSION,
    404: INVALID_REQUEST,
    405: INVALID_REQUEST,
    408: INVALID_REQUEST,
    409: INVALID_REQUEST,
    413: REQUEST_TOO_LARGE,
    415: INVALID_REQUEST,
    429: RATE_LIMIT,
    431: INVALID_REQUEST,
    500: API,
    502: API,
    503: OVERLOADED,
}
# Above this many seconds SDKs would sleep the whole time: they are told not to retry instead.
MAX_RETRY_AFTER_SECONDS = 60

TOO_MANY_CONNECTIONS_CODE = "too_many_connections"
STOPPING_CODE = "gateway_stopping"


class GatewayError(Exception):
    """An answer other than success. Nothing is held or billed for it unless its raiser says so."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        retry_after_seconds: int | None = None,
        should_retry: bool | None = None,
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.should_retry = should_retry
        self.headers = dict(headers or {})
        self.details = details

    def response_headers(self) -> dict[str, str]:
        headers = dict(self.headers)
        should_retry = self.should_retry
        if self.retry_after_seconds is not None:
            headers["retry-after"] = str(self.retry_after_seconds)
            if self.retry_after_seconds > MAX_RETRY_AFTER_SECONDS:
                should_retry = False
        if should_retry is not None:
            headers["x-should-retry"] = "true" if should_retry else "false"
        return headers


def render_error(
    status: int, code: str, message: str, request_id: str, details: Mapping[str, Any] | None = None
) -> bytes:
    """Return the JSON envelope of an error. Where there are `details`, SDKs look for a way out in them."""
    error: dict[str, Any] = {"type": TYPE_BY_STATUS.get(status, API), "message": message, "code": code}
    if details is not None:
        error["details"] = details
    return orjson.dumps({"type": "error", "error": error, "request_id": request_id})


def invalid_request(error: InvalidRequestError) -> GatewayError:
    """Return the 400 for what a request asks for."""
    return GatewayError(400, error.code, error.message, details=error.details)


def unavailable(message: str, *, code: str = "temporarily_unavailable", retry_after_seconds: int = 1) -> GatewayError:
    """Return the 503 for a part of ours that is down: nothing was admitted, so a retry costs nothing."""
    return GatewayError(503, code, message, retry_after_seconds=retry_after_seconds)


def too_many_connections() -> GatewayError:
    """Return the 503 of whoever finds no room for another connection: theirs, or ours to an upstream."""
    return unavailable("Too many connections are open.", code=TOO_MANY_CONNECTIONS_CODE)


def no_route(retry_after_seconds: int) -> GatewayError:
    """Return the 503 of a model that is on sale, and that no upstream may be called for now."""
    message = "The model is temporarily unavailable."
    return unavailable(message, code="no_route", retry_after_seconds=retry_after_seconds)


def stopping() -> GatewayError:
    """Return the 503 of a request that this process did not finish before it had to end."""
    return unavailable(
        "The gateway is restarting and could not finish this request; send it again.", code=STOPPING_CODE
    )
