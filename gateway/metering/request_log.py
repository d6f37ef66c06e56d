"""One line on standard output for each request as it is served, with its id and, where it was refused, the reason.

A line holds no key, nothing of a prompt or a reply, and no text that a client or an upstream wrote but the path; also
there, what is long enough to be a secret is left out. What cost nothing can be repeated for ever: of one organization
so many such lines a minute are written, and all whose key is not known share theirs. How many were left out is said.
"""

import asyncio
import re
import sys
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from django.conf import settings

from billing.admission.errors import AdmissionUnavailableError
from billing.money import format_usd
from gateway.authentication import KeyIdentity
from gateway.database import DatabaseUnavailableError
from gateway.errors import GatewayError
from gateway.metering.line_budget import LineBudget
from gateway.metering.metered_request import MeteredRequest
from gateway.spool import SpoolFullError

COST_DECIMALS = 6
FREE_LINES_PER_MINUTE = 120  # Of one organization; of all together whose key is not known, five times as many.
FREE_LINES_OF_STRANGERS_PER_MINUTE = 600
MAX_PATH_CHARS = 200
MAX_KNOWN_PATHS = 1_000
LONG_WORD = re.compile(r"[A-Za-z0-9_-]{40,}")  # Keys are that long, here and elsewhere; names of models are shorter.
# The errors of other statuses repeat what a client or an upstream wrote.
STATUSES_IN_OUR_WORDS = frozenset({401, 402, 409, 429})
FAILURES_OF_PARTS = (AdmissionUnavailableError, DatabaseUnavailableError, SpoolFullError)
MAX_CAUSE_CHARS = 200
LOGGER = "gateway.request"
FLUSH_SECONDS = 0.05
MAX_WAITING_LINES = 1_000


class _Line(NamedTuple):
    method: str
    path: str
    status: int
    duration_ms: float
    request_id: str
    metered: MeteredRequest | None
    identity: KeyIdentity | None
    code: str
    why: str
    trace_id: str


_waiting: list[str] = []
_free = LineBudget(FREE_LINES_PER_MINUTE, FREE_LINES_OF_STRANGERS_PER_MINUTE)


def log_request(
    *,
    method: str,
    path: str,
    status: int,
    duration_ms: float,
    request_id: str,
    metered: MeteredRequest | None,
    identity: KeyIdentity | None = None,
    code: str = "",
    why: str = "",
    trace_id: str = "",
) -> None:
    """Write the line, unless CROSSMODEL_REQUEST_LOG is off or the organization has had its lines of this minute.

    `code` is that of an error, and `why` what why_refused() says of it.
    """
    if not settings.REQUEST_LOG:
        return
    if metered is None or not metered.billed_nanos:
        organization_id = identity.organization_id if identity else 0
        if not _free.allows(organization_id):
            return
        if left_out := _free.take_left_out(organization_id):
            _write_left_out(organization_id, left_out)
    line = _Line(method, shown_path(path), status, duration_ms, request_id, metered, identity, code, why, trace_id)
    _write(_as_json(line) if settings.LOG_FORMAT == "json" else _as_text(line))


def why_refused(error: GatewayError) -> str:
    """Return the reason as a line may show it: which limit, and how far, or which part of ours failed in which way.

    "" where it repeats what a client or an upstream wrote.
    """
    if isinstance(error.__cause__, FAILURES_OF_PARTS):
        return ascii(str(error.__cause__)[:MAX_CAUSE_CHARS])[1:-1]
    return error.message if error.status in STATUSES_IN_OUR_WORDS else ""


@lru_cache(maxsize=MAX_KNOWN_PATHS)
def shown_path(path: str) -> str:
    """Return a path as a line shows it: printable, of a bounded length, and without what may be a secret."""
    if len(path) > MAX_PATH_CHARS or not path.isprintable():
        path = ascii(path[:MAX_PATH_CHARS])
    return LONG_WORD.sub("[...]", path)


def _as_text(line: _Line) -> str:
    what = ""
    if line.metered is not None:
        usage = line.metered.billed_usage
        cost = format_usd(line.metered.billed_nanos, min_decimals=COST_DECIMALS)
        what = f" {line.metered.facts.catalog_model.id} {usage.prompt_tokens} in {usage.output_tokens} out ${cost}"
    if line.code:
        of = f" of organization {line.identity.organization_id}" if line.identity else ""
        what += f" {line.code}{of}" + (f": {line.why}" if line.why else "")
    return f"{line.method} {line.path} {line.status}{what} {line.duration_ms:.0f} ms {line.request_id}\n"


def _as_json(line: _Line) -> str:
    fields: dict[str, Any] = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "level": "INFO",
        "logger": LOGGER,
        "message": f"{line.method} {line.path} {line.status}",
        "request_id": line.request_id,
        "status": line.status,
        "duration_ms": round(line.duration_ms, 1),
    }
    if line.identity is not None:
        fields |= {"organization": line.identity.organization_id, "key": line.identity.key_id}
    if line.code:
        fields |= {"code": line.code, "why": line.why}
    if line.trace_id:
        fields["trace_id"] = line.trace_id
    if line.metered is not None:
        fields |= _usage_fields(line.metered)
    return orjson.dumps(fields).decode() + "\n"


def _usage_fields(metered: MeteredRequest) -> dict[str, Any]:
    usage = metered.billed_usage
    last = metered.attempts.last
    return {
        "model": metered.facts.catalog_model.id,
        "upstream": last.upstream if last else "",
        "ending": metered.ending,
        "first_byte_ms": metered.first_byte_ms,
        "prompt_tokens": usage.prompt_tokens,
        "output_tokens": usage.output_tokens,
        "cost_usd": format_usd(metered.billed_nanos, min_decimals=COST_DECIMALS),
    }


def _write_left_out(organization_id: int, count: int) -> None:
    """Say that lines were left out, as a line of its own."""
    who = f"organization {organization_id}" if organization_id else "callers whose key is not known"
    text = f"{count} requests of {who} that cost nothing were left out of this log: more than it keeps of a minute."
    if settings.LOG_FORMAT == "json":
        fields = {"level": "WARNING", "logger": LOGGER, "message": text, "organization": organization_id}
        text = orjson.dumps(fields | {"left_out": count}).decode()
    _write(text + "\n")


def _write(line: str) -> None:
    """Write a line, a moment later: lines that come together wake whoever reads them once."""
    _waiting.append(line)
    if len(_waiting) == 1:
        asyncio.get_running_loop().call_later(FLUSH_SECONDS, flush_lines)
    elif len(_waiting) >= MAX_WAITING_LINES:
        flush_lines()


def flush_lines() -> None:
    """Let out what waits; to be called once more when the event loop ends."""
    lines = "".join(_waiting)
    _waiting.clear()
    if lines:
        sys.stdout.write(lines)
        sys.stdout.flush()
