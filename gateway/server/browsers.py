"""Apps in browsers: which of them may read our answers (CORS), as the operator configures it.

Source: the Fetch standard, "HTTP CORS protocol". A key in a browser is anybody's who looks, so nobody is allowed unless
CROSSMODEL_BROWSER_ORIGINS names them.
"""

from collections.abc import Iterable
from functools import lru_cache

from django.conf import settings

MAX_AGE_SECONDS = 7_200
METHODS = b"GET, HEAD, POST, OPTIONS"
# Of what a client may read beside the few that browsers always show.
LIMITED = ("requests", "tokens", "input-tokens", "output-tokens")
EXPOSED = ", ".join(
    [
        "request-id, retry-after, x-should-retry, idempotent-replayed, x-crossmodel-token-count",
        *(f"anthropic-ratelimit-{what}-{part}" for what in LIMITED for part in ("limit", "remaining", "reset")),
    ]
).encode()
MAX_REQUESTED_BYTES = 2_048
MAX_KNOWN_ORIGINS = 100

Headers = list[tuple[bytes, bytes]]


def headers_for_browsers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return what lets the app that asked read the answer; nothing for everybody else."""
    if not settings.BROWSER_ORIGINS:
        return []
    origin = _find(headers, b"origin")
    if not origin or not _is_allowed(origin, tuple(settings.BROWSER_ORIGINS)):
        return []
    return [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", EXPOSED), (b"vary", b"origin")]


def is_preflight(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a browser asks for an app; an OPTIONS request without these headers is a method like any other."""
    names = {name for name, _ in headers}
    return {b"origin", b"access-control-request-method"} <= names


def preflight_headers(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Return the answer to a preflight: empty when the app may not ask."""
    given = list(headers)
    allowed = headers_for_browsers(given)
    if not allowed:
        return []
    requested = _find(given, b"access-control-request-headers")[:MAX_REQUESTED_BYTES]
    answer = [*allowed, (b"access-control-allow-methods", METHODS)]
    answer.append((b"access-control-max-age", b"%d" % MAX_AGE_SECONDS))
    if requested:
        answer.append((b"access-control-allow-headers", requested))
    return answer


def _find(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    return next((value for name, value in headers if name == wanted), b"")


@lru_cache(maxsize=MAX_KNOWN_ORIGINS)
def _is_allowed(origin: bytes, origins: tuple[str, ...]) -> bool:
    return "*" in origins or origin.decode("latin-1").rstrip("/") in {known.rstrip("/") for known in origins}
