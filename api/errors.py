"""Errors of the JSON API in the envelope of `/v1/messages`, with its request id in body and header."""

from collections.abc import Iterator
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response
from rest_framework.settings import api_settings

from billing.admission.errors import AdmissionUnavailableError
from billing.request_id import REQUEST_PREFIX, make_request_id

RETRY_AFTER_SECONDS = "1"
TYPE_BY_STATUS = {
    401: "authentication_error",
    402: "permission_error",
    403: "permission_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}
INVALID_REQUEST, API = "invalid_request_error", "api_error"


class ConflictError(exceptions.APIException):
    """What was asked for does not fit what is there; `code` says how."""

    status_code = 409


def answer_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler. What it does not know stays an exception, is logged, and answered with a 500."""
    if isinstance(error, OperationalError | InterfaceError):
        return error_response(503, "database_unavailable", "The database cannot be reached. Try again shortly.")
    if isinstance(error, AdmissionUnavailableError):
        return error_response(503, "admission_unavailable", "The live balance cannot be read. Try again shortly.")
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if not isinstance(error, exceptions.APIException):
        return None
    codes = error.get_codes()
    code = codes if isinstance(codes, str) else "invalid_parameters"
    answer = error_response(error.status_code, code, _text_of(error))
    if (seconds := getattr(error, "retry_seconds", None)) is not None:
        answer.headers["retry-after"] = str(seconds)
    return answer


def error_response(status: int, code: str, message: str) -> Response:
    """Return the envelope as an answer of DRF; `code` is a stable machine word."""
    body, headers = envelope(status, code, message)
    return Response(body, status=status, headers=headers)


def envelope(status: int, code: str, message: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the documented body of an error, and the headers that belong to it."""
    request_id = REQUEST_PREFIX + make_request_id().hex
    kind = TYPE_BY_STATUS.get(status, INVALID_REQUEST if status < 500 else API)
    headers = {"request-id": request_id}
    if status == 503:
        headers["retry-after"] = RETRY_AFTER_SECONDS
    if status == 401:
        # Claude Code and some SDKs go on trying otherwise.
        headers["x-should-retry"] = "false"
    body = {"type": "error", "error": {"type": kind, "message": message, "code": code}, "request_id": request_id}
    return body, headers


def _text_of(error: exceptions.APIException) -> str:
    return " ".join(_lines_of(error.detail))  # Each is a sentence.


def _lines_of(detail: Any, name: str = "") -> Iterator[str]:
    """Yield each fault with the way to its field: `budgets.daily: ...`."""
    if isinstance(detail, dict):
        for inner, faults in detail.items():
            is_about_all = inner == api_settings.NON_FIELD_ERRORS_KEY
            yield from _lines_of(faults, name if is_about_all else f"{name}.{inner}" if name else str(inner))
    elif isinstance(detail, list) and any(isinstance(fault, dict | list) for fault in detail):
        for number, fault in enumerate(detail):
            yield from _lines_of(fault, f"{name}.{number}" if name else str(number))
    else:
        text = " ".join(map(str, detail)) if isinstance(detail, list) else str(detail)
        if text:
            yield f"{name}: {text}" if name else text
