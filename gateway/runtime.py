"""What one gateway process keeps for as long as it runs: connections, the catalog, the spool, the heartbeat."""

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import Awaitable, Callable
from uuid import UUID

from django.conf import settings

from billing.admission.client import AdmissionClient
from billing.admission.durability import check_at_start
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis.pipeline import ScriptRouter
from billing.admission.redis.topology import AsyncServers, read_topology
from billing.catalog.snapshot import CatalogSnapshot, catalog_fingerprint, load_snapshot
from billing.models import FailedRequest, UsageCorrection, UsageRecord
from billing.upstream_health.sharing import SharedUpstreamHealth
from billing.usage_event import ORPHAN
from gateway.admission.admit import RequestAdmission
from gateway.authentication import KeyDirectory
from gateway.background import BackgroundWork
from gateway.database import DatabaseThreads, DatabaseUnavailableError
from gateway.errors import unavailable
from gateway.holds import HoldKeeper
from gateway.http.client import UpstreamClient
from gateway.idempotency import delete_expired_answers
from gateway.metering.request_log import flush_lines
from gateway.metrics import HOLDS, REDIS_CALLS, SPOOL_BYTES, UNCONFIRMED
from gateway.metrics import flush as flush_metrics
from gateway.refusal_log import RefusalLog
from gateway.server.body_work import LargeBodies, UnpaidWork
from gateway.server.request_body import BodyRoom
from gateway.spool import Spool
from gateway.token_estimator import TokensPerByteEstimator
from gateway.upstreams.credential_checks import CredentialChecks
from gateway.upstreams.exchange import UpstreamAccess, UpstreamTimeouts
from gateway.upstreams.pool import UpstreamPool

SHUTDOWN_SECONDS = 30.0
FIND_SETTLED_BATCH = 5_000
GC_THRESHOLDS = (50_000, 20, 20)
# How long another thread may go on while the event loop waits for its turn. Python's own 5 ms would be paid several
# times by each request beside a large body that is being read: the loop waits anew after every call of the system.
SWITCH_SECONDS = 0.0005
FORGET_ANSWERS_SECONDS = 600.0

logger = logging.getLogger(__name__)


class GatewayRuntime:
    """Made when the process starts to serve; `start()` and `stop()` follow the ASGI lifespan."""

    def __init__(self) -> None:
        self.database = DatabaseThreads()
        self.keys = KeyDirectory(self.database)
        timeout_seconds = settings.ADMISSION.redis_timeout_seconds
        servers = AsyncServers(read_topology(settings.REDIS_URL), timeout_seconds=timeout_seconds)
        router = ScriptRouter(servers, timeout_seconds=timeout_seconds)
        self.upstream_health = SharedUpstreamHealth(router)
        self.admission_client = AdmissionClient(
            router,
            lease_seconds=settings.ADMISSION.lease_seconds,
            reopen_seconds=settings.ADMISSION.reopen_seconds,
            max_waiting_events=settings.MAX_WAITING_EVENTS,
        )
        self.spool = Spool(
            settings.DATA_DIR / "spool",
            max_bytes=settings.SPOOL_MAX_BYTES,
            retention_seconds=settings.GATEWAY.spool_retention_seconds,
        )
        self.hold_keeper = HoldKeeper(
            self.admission_client,
            self.spool,
            heartbeat_seconds=settings.ADMISSION.heartbeat_seconds,
            close_bound_seconds=settings.GATEWAY.close_bound_seconds,
            longest_seconds=settings.GATEWAY.longest_seconds,
        )
        self.upstreams = UpstreamClient(connect_seconds=settings.GATEWAY.upstream_connect_seconds)
        self.timeouts = UpstreamTimeouts(
            first_byte_seconds=settings.GATEWAY.upstream_first_byte_seconds,
            idle_seconds=settings.GATEWAY.upstream_idle_seconds,
            total_seconds=settings.GATEWAY.request_total_seconds,
        )
        self.pool = UpstreamPool(failures_to_open=settings.BREAKER_FAILURES)
        self.checks = CredentialChecks(self.upstreams, self.pool)
        self.refusals = RefusalLog(self.database)
        self.token_estimator = TokensPerByteEstimator()
        self.background = BackgroundWork(
            max_draining=settings.MAX_DRAINING_REQUESTS, drain_seconds=settings.GATEWAY.drain_seconds
        )
        self.admission = RequestAdmission(
            client=self.admission_client,
            keys=self.keys,
            database=self.database,
            hold_keeper=self.hold_keeper,
            spool=self.spool,
            token_estimator=self.token_estimator,
            background=self.background,
        )
        self.unpaid_work = UnpaidWork()
        self.body_room = BodyRoom()
        self.large_bodies = LargeBodies()
        self.upstream_access = UpstreamAccess(self.upstreams, self.pool, self.checks, self.large_bodies)
        self._catalog: CatalogSnapshot | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def catalog(self) -> CatalogSnapshot:
        """The catalog as of a few seconds ago. Raises GatewayError 503 while it was never loaded."""
        if self._catalog is None:
            raise unavailable("The catalog is not loaded yet.", code="catalog_unavailable")
        return self._catalog

    async def start(self) -> None:
        """Raises SpoolUnusableError; UnfitRedisError in production, where Redis would lose money."""
        self.spool.claim()
        await asyncio.to_thread(check_at_start)
        await self._refresh_catalog()
        await self._read_clock()
        await self.hold_keeper.start(self._find_settled)
        for seconds, work in (
            (settings.GATEWAY.catalog_refresh_seconds, self._refresh_catalog),
            (settings.ADMISSION.heartbeat_seconds, self._share),
            (FORGET_ANSWERS_SECONDS, self._forget_answers),
        ):
            self._tasks.append(asyncio.create_task(repeat(seconds, work)))

    async def stop(self) -> None:
        """Let background work end, within a bound, and close what was opened."""
        self.admission.close()
        for task in self._tasks:
            task.cancel()
        await self.background.finish(within_seconds=SHUTDOWN_SECONDS)
        await self.hold_keeper.stop()
        await self.refusals.write()
        flush_metrics()
        await self.admission_client.aclose()
        await self.checks.aclose()
        await self.upstreams.aclose()
        self.spool.close()
        self.large_bodies.close()
        self.database.close()

    async def _forget_answers(self) -> None:
        with contextlib.suppress(DatabaseUnavailableError):
            await self.database.run(delete_expired_answers)

    async def _share(self) -> None:
        await self.admission_client.leave_former_master()
        await self._read_clock()
        with contextlib.suppress(AdmissionUnavailableError):  # Then each process knows only what it saw itself.
            await self.pool.share(self.upstream_health)
        await self.refusals.write()
        flush_metrics()
        HOLDS.set(self.hold_keeper.running_count)
        UNCONFIRMED.set(self.hold_keeper.unconfirmed_count)
        SPOOL_BYTES.set(self.spool.unconfirmed_bytes)
        REDIS_CALLS.set(self.admission_client.waiting_calls)

    async def _read_clock(self) -> None:
        with contextlib.suppress(AdmissionUnavailableError):  # What was known of it goes on being used.
            await self.admission_client.read_clock()

    async def _refresh_catalog(self) -> None:
        with contextlib.suppress(DatabaseUnavailableError):  # The catalog of a moment ago goes on being used.
            fingerprint = await self.database.run(catalog_fingerprint)
            if self._catalog is None or fingerprint != self._catalog.fingerprint:
                self._catalog = await self.database.run(load_snapshot)

    async def _find_settled(self, request_ids: list[str]) -> set[str]:
        found: set[str] = set()
        try:
            for start in range(0, len(request_ids), FIND_SETTLED_BATCH):
                found |= await self.database.run(find_settled_ids, request_ids[start : start + FIND_SETTLED_BATCH])
        except DatabaseUnavailableError:
            logger.warning("Postgres cannot say which spooled events it has; all are sent again.")
        return found


async def repeat(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    """Do the work again and again, until this is cancelled. A fault in it, of a row or a full disk, ends no more than
    that one time: nobody would notice that prices, refusals and counts have stood still since.
    """
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except Exception:
            logger.exception("%s failed; it is tried again.", work.__name__.removeprefix("_"))


def find_settled_ids(request_ids: list[str]) -> set[str]:
    """Return those of the ids whose true end Postgres has. A bare orphan is none: the truth is still wanted."""
    ids = [UUID(text) for text in request_ids]
    usage = UsageRecord.objects.filter(request_id__in=ids).exclude(usage_source=ORPHAN)
    known = [table.objects.filter(request_id__in=ids) for table in (FailedRequest, UsageCorrection)]
    return {request_id.hex for rows in (usage, *known) for request_id in rows.values_list("request_id", flat=True)}


_current: GatewayRuntime | None = None


async def start_runtime() -> None:
    global _current
    _current = GatewayRuntime()
    await _current.start()
    _tune_garbage_collection()
    sys.setswitchinterval(SWITCH_SECONDS)


def _tune_garbage_collection() -> None:
    """What is loaded by now lives as long as the process: it is not looked through again. A request makes some hundred
    objects that reference counting frees; looking for cycles among them seldom is enough."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def stop_runtime() -> None:
    global _current
    if _current is not None:
        await _current.stop()
        _current = None
        flush_lines()


def current_runtime() -> GatewayRuntime:
    """Return the runtime of this process. Raises GatewayError 503 before it has started."""
    if _current is None:
        raise unavailable("The gateway is starting.", code="gateway_starting")
    return _current
