"""What one gateway process keeps for as long as it runs: connections, the catalog, the spool, the heartbeat."""

import asyncio
import contextlib
import gc
import logging
from collections import Counter
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

from django.conf import settings

from billing.admission.client import AdmissionClient
from billing.admission.durability import check_at_start
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.feed import read_key, read_organization
from billing.admission.pipeline import ScriptRouter
from billing.admission.topology import AsyncServers, read_topology
from billing.catalog.snapshot import CatalogSnapshot, catalog_fingerprint, load_snapshot
from billing.models import FailedRequest, UsageCorrection, UsageRecord
from billing.usage_event import ORPHAN
from gateway.authentication import KeyDirectory
from gateway.body_work import LargeBodies, UnpaidWork
from gateway.database import DatabaseThreads, DatabaseUnavailableError
from gateway.errors import unavailable
from gateway.idempotency import delete_expired_answers
from gateway.request_body import BodyRoom
from gateway.settler import Settler
from gateway.spool import Spool
from gateway.token_density import TokenDensity
from gateway.upstreams.calls import Patience
from gateway.upstreams.credential_checks import CredentialChecks
from gateway.upstreams.http_client import UpstreamClient
from gateway.upstreams.pool import UpstreamPool

SHUTDOWN_SECONDS = 30.0
FIND_SETTLED_BATCH = 5_000
GC_THRESHOLDS = (50_000, 20, 20)
FORGET_ANSWERS_SECONDS = 600.0
DRAINING_SHARE = 2  # One organization may have this part of all that is read without a client.

logger = logging.getLogger(__name__)


class GatewayRuntime:
    """Made when the process starts to serve; `start()` and `stop()` follow the ASGI lifespan."""

    def __init__(self) -> None:
        self.database = DatabaseThreads()
        self.keys = KeyDirectory(self.database)
        timeout_seconds = settings.ADMISSION["redis_timeout_seconds"]
        servers = AsyncServers(read_topology(settings.REDIS_URL), timeout_seconds=timeout_seconds)
        self.admission = AdmissionClient(
            ScriptRouter(servers, timeout_seconds=timeout_seconds),
            lease_seconds=settings.ADMISSION["lease_seconds"],
            reopen_seconds=settings.ADMISSION["reopen_seconds"],
            max_waiting_events=settings.MAX_WAITING_EVENTS,
        )
        self.spool = Spool(
            settings.DATA_DIR / "spool",
            max_bytes=settings.SPOOL_MAX_BYTES,
            retention_seconds=settings.GATEWAY["spool_retention_seconds"],
        )
        self.settler = Settler(
            self.admission,
            self.spool,
            beat_seconds=settings.ADMISSION["heartbeat_seconds"],
            settle_bound_seconds=settings.GATEWAY["settle_bound_seconds"],
        )
        self.upstreams = UpstreamClient(connect_seconds=settings.GATEWAY["upstream_connect_seconds"])
        self.patience = Patience(
            first_byte_seconds=settings.GATEWAY["upstream_first_byte_seconds"],
            idle_seconds=settings.GATEWAY["upstream_idle_seconds"],
            total_seconds=settings.GATEWAY["request_total_seconds"],
        )
        self.pool = UpstreamPool(failures_to_open=settings.BREAKER_FAILURES)
        self.checks = CredentialChecks(self.upstreams, self.pool)
        self.density = TokenDensity()
        self.unpaid_work = UnpaidWork()
        self.body_room = BodyRoom()
        self.large_bodies = LargeBodies()
        self._catalog: CatalogSnapshot | None = None
        self._background: dict[asyncio.Task[None], int] = {}  # With the organization that it is for.
        self._background_of: Counter[int] = Counter()
        self._tasks: list[asyncio.Task[None]] = []
        self.is_draining = False

    @property
    def catalog(self) -> CatalogSnapshot:
        """The catalog as of a few seconds ago. Raises GatewayError 503 while it was never loaded."""
        if self._catalog is None:
            raise unavailable("The catalog is not loaded yet.", code="catalog_unavailable")
        return self._catalog

    async def start(self) -> None:
        """Raises UnfitRedisError in production, where Redis would lose money."""
        await asyncio.to_thread(check_at_start)
        await self._refresh_catalog()
        await self._read_clock()
        await self.settler.start(self._find_settled)
        for work in (self._refresh_for_ever, self._share_for_ever, self._forget_answers_for_ever):
            self._tasks.append(asyncio.create_task(work()))

    async def stop(self) -> None:
        """Let background work end, within a bound, and close what was opened."""
        self.is_draining = True
        for task in self._tasks:
            task.cancel()
        if self._background:
            await asyncio.wait(self._background, timeout=SHUTDOWN_SECONDS)
        await self.settler.stop()
        await self.admission.aclose()
        await self.checks.aclose()
        await self.upstreams.aclose()
        self.spool.close()
        self.large_bodies.close()
        self.database.close()

    def run_in_background(self, work: Coroutine[Any, Any, None], *, organization_id: int = 0) -> None:
        """Run work that must be finished although its client has left."""
        task = asyncio.create_task(work)
        self._background[task] = organization_id
        self._background_of[organization_id] += 1
        task.add_done_callback(self._forget)

    def drain_seconds(self, organization_id: int) -> float:
        """Return how long an upstream may be read without a client: not at all while too many are, of all
        organizations together or of this one.
        """
        most = settings.MAX_DRAINING_REQUESTS
        if len(self._background) >= most or self._background_of[organization_id] >= most // DRAINING_SHARE:
            return 0.0
        return settings.GATEWAY["drain_seconds"]

    async def load_organization(self, organization_id: int, *, epoch: str) -> bool:
        """Bring an organization into Redis, if `epoch` still stands: whoever asks again is told otherwise.

        Returns False when there is none. Raises DatabaseUnavailableError.
        """
        publication = await self.database.run(read_organization, organization_id)
        if publication is not None:
            await self.admission.publish(publication, epoch=epoch)
        return publication is not None

    async def load_key(self, key_id: int, *, epoch: str) -> bool:
        """Bring a key into Redis, as load_organization() does."""
        publication = await self.database.run(read_key, key_id)
        if publication is not None:
            await self.admission.publish(publication, epoch=epoch)
        return publication is not None

    def _forget(self, task: asyncio.Task[None]) -> None:
        organization_id = self._background.pop(task)
        self._background_of[organization_id] -= 1
        if not self._background_of[organization_id]:
            del self._background_of[organization_id]
        if not task.cancelled() and task.exception() is not None:
            logger.error("Background work failed.", exc_info=task.exception())

    async def _refresh_for_ever(self) -> None:
        while True:
            await asyncio.sleep(settings.GATEWAY["catalog_refresh_seconds"])
            await self._refresh_catalog()

    async def _forget_answers_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FORGET_ANSWERS_SECONDS)
            with contextlib.suppress(DatabaseUnavailableError):
                await self.database.run(delete_expired_answers)

    async def _share_for_ever(self) -> None:
        while True:
            await asyncio.sleep(settings.ADMISSION["heartbeat_seconds"])
            await self.admission.leave_former_master()
            await self._read_clock()
            with contextlib.suppress(AdmissionUnavailableError):  # Then each process knows only what it saw itself.
                await self.pool.share(self.admission)

    async def _read_clock(self) -> None:
        with contextlib.suppress(AdmissionUnavailableError):  # What was known of it goes on being used.
            await self.admission.read_clock()

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


def current_runtime() -> GatewayRuntime:
    """Return the runtime of this process. Raises GatewayError 503 before it has started."""
    if _current is None:
        raise unavailable("The gateway is starting.", code="gateway_starting")
    return _current
