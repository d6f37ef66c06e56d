"""Errors as real providers word them. Pure."""

from typing import Any, NamedTuple

import orjson

from sandbox.directives import Directives

DEFAULT_RETRY_AFTER_SECONDS = 2
HTML_PAGE = (
    b"<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1><p>sandbox</p></body></html>\n"
)

_TYPE_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    529: "overloaded_error",
}
# The organization in some of them is there so that a test can see whether a gateway passes such details on.
_MESSAGE_BY_STATUS = {
    400: "sandbox: messages.0.content: Input should be a valid list",
    401: "sandbox: invalid x-api-key of organization sandbox-org-7f3a",
    403: "sandbox: organization sandbox-org-7f3a may not use this model",
    404: "sandbox: model not found for organization sandbox-org-7f3a",
    413: "sandbox: Request exceeds the maximum size",
    429: "sandbox: this request would exceed the rate limit of organization sandbox-org-7f3a",
    500: "sandbox: Internal server error",
    503: "sandbox: Service unavailable",
    529: "Overloaded",
}
_REASONS = {
    200: "OK", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed",
    413: "Request Entity Too Large", 429: "Too Many Requests", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 529: "Overloaded",
}  # fmt: skip


class ErrorAnswer(NamedTuple):
    """A refusal, ready to be sent."""

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    retry_after_seconds: int | None = None


def reason(status: int) -> str:
    return _REASONS.get(status, "Unknown")


def error_fields(status: int, message: str, *, chat: bool, request_id: str) -> dict[str, Any]:
    """The error's JSON in the protocol's form."""
    kind = _TYPE_BY_STATUS.get(status, "api_error")
    if chat:
        return {"error": {"message": message, "type": kind, "param": None, "code": None}}
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def error_answer(status: int, message: str, *, chat: bool, request_id: str) -> ErrorAnswer:
    return ErrorAnswer(status, orjson.dumps(error_fields(status, message, chat=chat, request_id=request_id)))


def directed_error(directives: Directives, *, streamed: bool, chat: bool, request_id: str) -> ErrorAnswer | None:
    """The error that the directives ask for instead of a reply, if they do."""
    if "html" in directives:
        return ErrorAnswer(502, HTML_PAGE, b"text/html")
    if "string_error" in directives:
        message = directives.word("message") or "sandbox: something broke"
        return ErrorAnswer(500, orjson.dumps({"error": message}))
    status_word = directives.word("status")
    if status_word is None and directives.word("error") == "mid" and not streamed:
        status_word = "529"
    if status_word is None:
        return None
    status = int(status_word)
    message = directives.word("message") or _MESSAGE_BY_STATUS[status]
    answer = error_answer(status, message, chat=chat, request_id=request_id)
    if "retry_after" in directives or status == 429:
        return answer._replace(retry_after_seconds=directives.number("retry_after", DEFAULT_RETRY_AFTER_SECONDS))
    return answer
