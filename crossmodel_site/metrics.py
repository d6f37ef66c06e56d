"""`GET /metrics` for Prometheus: what the processes of this machine count, and the state that all machines share.

Counts come from gateway/metrics.py and operations/metrics.py. The shared state is read here from Redis and Postgres,
once in LOOK_SECONDS at most and beside the event loop, so that nobody can wear anything out by asking. A store that
hangs is given up on in time: what else is known is wanted most then. The page is for
networks that CROSSMODEL_METRICS_NETWORKS names, or for whoever knows CROSSMODEL_METRICS_TOKEN; strangers get the 404 of
any other path.
"""

import asyncio
import contextlib
import hmac
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import close_old_connections
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from accounts.request_credentials import lies_in, read_networks
from crossmodel_site.looking import look_in_time
from operations.gauges import GAUGES, Gauge
from operations.status import AWAY, Line, read_gauges

PATH = "/metrics"
LOOK_SECONDS = 5.0
MAX_LOOK_SECONDS = 5.0  # What a store has not said by then is missing; Prometheus itself waits for ten.
MAX_DEAD_FILES = 400  # Of processes that are gone; their counts are kept until there are more.
# A proxy in front speaks for strangers: what came through one is not of this machine, wherever it seems to come from.
PROXY_HEADERS = frozenset({b"x-forwarded-for", b"forwarded", b"via", b"x-real-ip"})

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Found = Sequence[tuple[str, Gauge, Sequence[Line]]]  # What a store says; nothing where it is away.


class Metrics:
    """An ASGI application for PATH. Any body is left unread."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="metrics")
        # One each: looks at a store that hangs wait for one another, and hold up nothing else.
        self._lookers = {store: ThreadPoolExecutor(1, thread_name_prefix=f"metrics-{store}") for store in GAUGES}
        self._page = b""
        self._made_at = -LOOK_SECONDS
        self._making: asyncio.Task[bytes] | None = None

    def may_see(self, scope: Scope) -> bool:
        """Say whether this client may see the metrics at all."""
        headers = dict(scope["headers"])
        if settings.METRICS_TOKEN:
            return hmac.compare_digest(headers.get(b"authorization", b""), f"Bearer {settings.METRICS_TOKEN}".encode())
        client = scope.get("client")
        if client is None or not PROXY_HEADERS.isdisjoint(headers):
            return False
        return lies_in(read_networks(settings.METRICS_NETWORKS), client[0])

    async def __call__(self, scope: Scope, send: Send) -> None:
        is_read = scope["method"] in ("GET", "HEAD")
        body = await self._look() if is_read else b"Only GET and HEAD are answered here.\n"
        headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), (b"content-length", b"%d" % len(body))]
        headers += [(b"cache-control", b"no-store")]
        if not is_read:
            headers += [(b"allow", b"GET, HEAD"), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200 if is_read else 405, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _look(self) -> bytes:
        """Return the page of a moment ago, or make it again, once for all that ask meanwhile."""
        if time.monotonic() - self._made_at < LOOK_SECONDS:
            return self._page
        if self._making is None:
            self._making = asyncio.create_task(self._make())
        return await asyncio.shield(self._making)

    async def _make(self) -> bytes:
        try:
            found = dict(zip(GAUGES, await asyncio.gather(*map(self._ask, GAUGES)), strict=True))
            self._page = await asyncio.get_running_loop().run_in_executor(self._executor, render, found)
            self._made_at = time.monotonic()
            return self._page
        finally:
            self._making = None

    async def _ask(self, store: str) -> Found:
        look = partial(_look_in_a_thread, store)
        return await look_in_time(self._lookers[store], look, seconds=MAX_LOOK_SECONDS, otherwise=())


def look_at(store: str) -> Found:
    """Return what a store says now. Blocks, for as long as it hangs."""
    try:
        return read_gauges(store)
    except AWAY:
        return ()


def _look_in_a_thread(store: str) -> Found:
    close_old_connections()  # The thread keeps one of its own.
    return look_at(store)


def render(found: Mapping[str, Found]) -> bytes:
    """Return the page as Prometheus reads it, with what the stores have said. Blocks: it may read many files."""
    registry = REGISTRY
    if settings.METRICS_DIR:
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    shared = CollectorRegistry()
    shared.register(SharedState(found))
    return generate_latest(registry) + generate_latest(shared)


class SharedState:
    """What everybody shares: Prometheus takes it from any one gateway (`max`, never `sum`)."""

    def __init__(self, found: Mapping[str, Found]) -> None:
        self._found = found

    def collect(self) -> Iterator[Metric]:
        """Give what operations/status.py finds. What a store that is away would say is missing, not zero."""
        up = GaugeMetricFamily("crossmodel_store_up", "1 when the store answered.", labels=["store"])
        for store, found in self._found.items():
            up.add_metric([store], 1 if found else 0)
            yield from (_family(name, gauge, lines) for name, gauge, lines in found)
        yield up


def _family(name: str, gauge: Gauge, lines: Sequence[Line]) -> GaugeMetricFamily:
    if not gauge.labels:
        return GaugeMetricFamily(f"crossmodel_{name}", gauge.text, value=sum(line.value for line in lines))
    family = GaugeMetricFamily(f"crossmodel_{name}", gauge.text, labels=gauge.labels)
    for line in lines:
        family.add_metric(line.labels, line.value)
    return family


def forget_dead_processes() -> None:
    """Remove the files of processes that are gone once they are many: counts that fall are a restart to Prometheus."""
    if not settings.METRICS_DIR:
        return
    files = list(Path(settings.METRICS_DIR).glob("*.db"))
    dead = [path for path in files if not _is_alive(path.stem.rsplit("_", 1)[-1])]
    for path in dead:
        if path.name.startswith("gauge_live") or len(dead) > MAX_DEAD_FILES:
            with contextlib.suppress(OSError):
                path.unlink()


def _is_alive(pid: str) -> bool:
    if not pid.isdigit():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
