"""For load balancers and supervisors: is the process alive, and can it reach what it needs.

Probes are answered without a page's thread, and whoever asks often asks nobody else: Postgres and Redis are looked at
once a second at most, in a thread and over connections of their own.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import redis
from django.db import DatabaseError, InterfaceError, close_old_connections, connection

from billing.admission.redis.blocking_client import redis_client
from billing.request_id import REQUEST_PREFIX, make_request_id
from crossmodel_site.looking import look_in_time

OK, UNREACHABLE = "ok", "unreachable"
LOOK_SECONDS = 1.0  # What was seen holds this long.
MAX_LOOK_SECONDS = 5.0  # Whatever has not answered by then is not reached.
ALIVE = frozenset({"/healthz", "/api/hello"})  # Claude Code asks for the latter at its base URL.
READY = "/readyz"

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Probes:
    """An ASGI application for the paths in `PATHS`. Any body is left unread."""

    PATHS = ALIVE | {READY}

    def __init__(self) -> None:
        # One each: looks at a store that hangs wait for one another, and never hide the other store.
        self._postgres = ThreadPoolExecutor(1, thread_name_prefix="probe-postgres")
        self._redis = ThreadPoolExecutor(1, thread_name_prefix="probe-redis")
        self._states: dict[str, str] = {}
        self._seen_at = -LOOK_SECONDS
        self._looking: asyncio.Task[dict[str, str]] | None = None

    async def __call__(self, scope: Scope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(scope, send, 405, {"error": "Only GET and HEAD are answered here."})
        elif scope["path"] in ALIVE:
            await _answer(scope, send, 200, {"status": OK})
        else:
            states = await self._look()
            is_ready = set(states.values()) == {OK}
            what = {"status": OK if is_ready else "unavailable", **states}
            await _answer(scope, send, 200 if is_ready else 503, what)

    async def _look(self) -> dict[str, str]:
        """Return what was seen a moment ago, or look again, once for all that ask meanwhile."""
        if time.monotonic() - self._seen_at < LOOK_SECONDS:
            return self._states
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_anew())
        return await asyncio.shield(self._looking)

    async def _look_anew(self) -> dict[str, str]:
        try:
            postgres, redis_state = await asyncio.gather(
                look_in_time(self._postgres, _look_at_postgres, seconds=MAX_LOOK_SECONDS, otherwise=UNREACHABLE),
                look_in_time(self._redis, _look_at_redis, seconds=MAX_LOOK_SECONDS, otherwise=UNREACHABLE),
            )
            self._states = {"postgres": postgres, "redis": redis_state}
            self._seen_at = time.monotonic()
            return self._states
        finally:
            self._looking = None


async def _answer(scope: Scope, send: Send, status: int, what: dict[str, str]) -> None:
    body = orjson.dumps(what)
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(b"cache-control", b"no-store"), (b"request-id", (REQUEST_PREFIX + make_request_id().hex).encode())]
    if status == 405:
        headers += [(b"allow", b"GET, HEAD"), (b"connection", b"close")]  # Whatever its body is, it is not read.
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _look_at_postgres() -> str:
    try:
        close_old_connections()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except (DatabaseError, InterfaceError):
        connection.close()
        return UNREACHABLE
    return OK


def _look_at_redis() -> str:
    try:
        redis_client().ping()
    except (redis.RedisError, OSError):
        return UNREACHABLE
    return OK
