"""An upstream's error, as a status or inside a stream, turned into ours. Pure.

Texts of an upstream may carry ids of our account there: those of 400 and 413 pass, which clients heal from; the rest is
replaced. Its 401 is about our credential, and its 402 about our account, never the client's; its 403 may be either a
refusal of what was asked (moderation, a firewall) or of the credential, so it answers the request, and is looked into.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

import orjson

from gateway.protocol.errors import UpstreamStreamError

MAX_MESSAGE_CHARS = 4_000
MAX_DETAILS_BYTES = 4_000
MAX_RETRY_AFTER_SECONDS = 86_400
MAX_ERROR_BODY_BYTES = 256 * 1024  # What of an error's body is worth parsing.
OVERLOADED_TEXT = "The model is temporarily overloaded. Please retry shortly."
REFUSED_TEXT = "The model service does not permit this request."
FAILED_TEXT = "The model service returned an error."
# Errors that are about our account, not the request (Anthropic, OpenAI). Only how a text begins counts: refusals repeat
# what the client wrote, after the path of the field, and a client must not be able to suspend our credentials.
ACCOUNT_FAULT = re.compile(r"your credit balance is too low|(this|your) organization has been disabled", re.IGNORECASE)
ACCOUNT_CODES = ("billing_not_active", "insufficient_quota")
REQUEST_TIMEOUT = 408
LASTING_STATUSES = (404, 405, 410)
# Claude Code shortens the conversation when a 400 says this; OpenAI-compatible upstreams say it in other words.
PROMPT_TOO_LONG = "prompt is too long"
CONTEXT_CODES = ("context_length_exceeded", "exceed_context_size_error")
# An upstream that says within a stream what it would otherwise have said with a 4xx: it refuses this one request.
REFUSAL_TYPES = ("invalid_request_error", "request_too_large", "not_found_error", "content_filter")
REFUSAL_CODES = ("400", "404", "413", "422", "content_filter", "context_length_exceeded")
OVERLOADED_TYPES = ("overloaded_error", "rate_limit_error", "rate_limit_exceeded", "insufficient_quota")


class Fault(StrEnum):
    """Whose fault an upstream's error is: decides on failover, breaker and the upstream's credential."""

    CLIENT = "client"  # The request itself: no other route would serve it, no breaker counts it.
    UPSTREAM = "upstream"  # The provider: the next route may serve it, the breaker counts it.
    # It lacks what the request names, a model or the client's file: the next route may have it; no sign of ill health.
    NOT_SERVED = "not_served"
    RATE_LIMIT = "rate_limit"  # Our rate there is used up: the next route may serve it; no sign of ill health.
    CREDENTIAL = "credential"  # Our credential, it says: it is checked; another credential or route may serve it.
    ACCOUNT = "account"  # Our account there, out of money say: operators are told; the next route may serve it.
    FORBIDDEN = (
        "forbidden"  # What was asked, or our credential: no other route is asked, and the credential is checked.
    )


@dataclass(frozen=True, slots=True)
class UpstreamFailure:
    """The answer to the client when no other route is left. `reason` is for logs and attempts, never for clients."""

    status: int
    error_type: str
    code: str
    message: str
    fault: Fault
    reason: str
    retry_after_seconds: int | None = None
    should_retry: bool | None = None  # False where the same call would fail again; None leaves it to the status.
    details: Mapping[str, Any] | None = None

    @property
    def can_fail_over(self) -> bool:
        return self.fault not in (Fault.CLIENT, Fault.FORBIDDEN)


def map_upstream_error(status: int, headers: Mapping[str, str], body: bytes) -> UpstreamFailure:
    """Return our error for an upstream's answer other than 200. `headers` have lower-case names. Never raises."""
    said = _read_error(body)
    reason = f"status {status}: {said.message or said.error_type or 'no message'}"[:MAX_MESSAGE_CHARS]
    retry_after = read_retry_after(headers.get("retry-after"), sent_at=headers.get("date"))
    if status == 402 or ACCOUNT_FAULT.match(said.message) or said.code in ACCOUNT_CODES:
        return UpstreamFailure(502, "api_error", "upstream_refused_account", FAILED_TEXT, Fault.ACCOUNT, reason)
    if status == 401:
        return UpstreamFailure(502, "api_error", "upstream_refused_credential", FAILED_TEXT, Fault.CREDENTIAL, reason)
    if status == 403:
        return UpstreamFailure(
            402, "permission_error", "upstream_refused_request", REFUSED_TEXT, Fault.FORBIDDEN, reason
        )
    if status in (400, 413, 422):
        return _client_fault(status, said, reason)
    if status == 429:
        return UpstreamFailure(
            503,
            "overloaded_error",
            "upstream_rate_limited",
            OVERLOADED_TEXT,
            Fault.RATE_LIMIT,
            reason,
            retry_after_seconds=retry_after or 1,
        )
    if status in (503, 529):
        return UpstreamFailure(
            503,
            "overloaded_error",
            "upstream_overloaded",
            OVERLOADED_TEXT,
            Fault.UPSTREAM,
            reason,
            retry_after_seconds=retry_after or 1,
        )
    fault = Fault.NOT_SERVED if 400 <= status < 500 and status != REQUEST_TIMEOUT else Fault.UPSTREAM
    # Who lacks the model today lacks it in a minute too; Claude Code would ask for longer than that.
    should_retry = False if status in LASTING_STATUSES else None
    return UpstreamFailure(502, "api_error", "upstream_error", FAILED_TEXT, fault, reason, retry_after, should_retry)


def read_stream_error(data: bytes) -> UpstreamStreamError:
    """Return the failure for an error that came inside a stream, whatever its shape. Never raises."""
    said = _read_error(data)
    reason = f"error in the stream: {said.message or said.error_type or 'no message'}"[:MAX_MESSAGE_CHARS]
    if said.error_type in OVERLOADED_TYPES or said.code in OVERLOADED_TYPES or said.code in ("429", "503", "529"):
        return UpstreamStreamError(
            reason, error_type="overloaded_error", code="upstream_overloaded", client_message=OVERLOADED_TEXT
        )
    is_refusal = said.error_type in REFUSAL_TYPES or said.code in REFUSAL_CODES
    return UpstreamStreamError(
        reason, code="upstream_error", client_message=FAILED_TEXT, is_upstream_fault=not is_refusal
    )


def read_retry_after(value: str | None, *, sent_at: str | None = None) -> int | None:
    """Return the seconds of a `retry-after` header, rounded up; None when it says nothing.

    A date counts from `sent_at`, the `date` of the same answer, as two clocks differ; without one, from ours.
    """
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        again = _read_date(value)
        if again is None:
            return None
        seconds = max(0.0, (again - (_read_date(sent_at) or datetime.now(UTC))).total_seconds())
    return min(int(-(-seconds // 1)), MAX_RETRY_AFTER_SECONDS) if 0 <= seconds < float("inf") else None


def _read_date(value: str | None) -> datetime | None:
    """Return the moment of an HTTP date (RFC 9110, 5.6.7); None when it is none."""
    try:
        moment = parsedate_to_datetime(value or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class _Said:
    message: str = ""
    error_type: str = ""
    code: str = ""
    details: Mapping[str, Any] | None = None


def _client_fault(status: int, said: _Said, reason: str) -> UpstreamFailure:
    if status == 413:
        message = said.message or "The request is too large for the model."
        return UpstreamFailure(413, "request_too_large", "upstream_request_too_large", message, Fault.CLIENT, reason)
    message = said.message if status == 400 and said.message else "The model service refused the request as invalid."
    is_too_long = said.code in CONTEXT_CODES or said.error_type in CONTEXT_CODES
    if is_too_long and PROMPT_TOO_LONG not in message:
        message = f"{PROMPT_TOO_LONG}: {message}"
    details = said.details if status == 400 else None
    return UpstreamFailure(
        400, "invalid_request_error", "upstream_invalid_request", message, Fault.CLIENT, reason, details=details
    )


def _read_error(body: bytes) -> _Said:
    """Read the envelopes of Anthropic, OpenAI, FastAPI and Google (a list of one); HTML and strings say nothing."""
    if len(body) > MAX_ERROR_BODY_BYTES:
        return _Said()
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _Said()
    if isinstance(value, list) and value:
        value = value[0]
    if not isinstance(value, dict):
        return _Said()
    error: Any = value.get("error", value)
    if isinstance(error, str):
        return _Said(message=_text(error))
    if not isinstance(error, dict):
        return _Said()
    message = error.get("message") or error.get("detail")
    code = error.get("code")
    return _Said(
        message=_text(message),
        error_type=_text(error.get("type")),
        code=str(code) if isinstance(code, int) else _text(code),
        details=_details(error.get("details")),
    )


def _details(value: object) -> dict[str, Any] | None:
    """Return Anthropic's `error.details`, which name what its SDKs heal from; None for anything else or too much."""
    if not isinstance(value, dict) or not isinstance(value.get("error_code"), str):
        return None
    try:
        return value if len(orjson.dumps(value)) <= MAX_DETAILS_BYTES else None
    except TypeError:  # Nested too deep.
        return None


def _text(value: object) -> str:
    return value.replace("\x00", "")[:MAX_MESSAGE_CHARS] if isinstance(value, str) else ""
