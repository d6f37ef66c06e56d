"""Errors of the JSON API in the envelope of `/v1/messages`, with its request id in body and header."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import InterfaceError, OperationalError
from django.http import Http404
from rest_framework import exceptions
from rest_framework.response import Response

from billing.admission.errors import AdmissionUnavailableError
from billing.request_id import REQUEST_PREFIX, make_request_id

RETRY_AFTER_SECONDS = "1"
TYPE_BY_STATUS = {
    401: "authentication_error",
    402: "permission_error",
    403: "permission_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
INVALID_REQUEST, API = "invalid_request_error", "api_error"


def answer_exception(error: Exception, context: dict[str, Any]) -> Response | None:
    """DRF's exception handler. What it does not know stays an exception, is logged, and answered with a 500."""
    if isinstance(error, OperationalError | InterfaceError):
        return error_response(503, "database_unavailable", "The database cannot be reached. Try again shortly.")
    if isinstance(error, AdmissionUnavailableError):
        return error_response(503, "admission_unavailable", "Live figures cannot be read. Try again shortly.")
    if isinstance(error, Http404):
        error = exceptions.NotFound()
    elif isinstance(error, PermissionDenied):
        error = exceptions.PermissionDenied()
    if not isinstance(error, exceptions.APIException):
        return None
    codes = error.get_codes()
    code = codes if isinstance(codes, str) else "invalid_parameters"
    return error_response(error.status_code, code, _text_of(error))


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
    if isinstance(error.detail, dict):
        return "; ".join(f"{name}: {' '.join(map(str, texts))}" for name, texts in error.detail.items())
    if isinstance(error.detail, list):
        return " ".join(map(str, error.detail))
    return str(error.detail)
