"""Sees every admitted request to its end in Redis: settles it, tries again, keeps its hold alive until then.

An event goes to the spool first and then to Redis. From there on it is known as `unconfirmed` until settlement has it
in Postgres: should Redis be replaced meanwhile, it is sent again. Postgres' unique key tells doubled events apart.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from billing.admission.client import AdmissionClient, Hold
from billing.admission.errors import AdmissionUnavailableError, InvalidAmountError
from billing.shards import shard_of
from gateway.spool import Spool, SpooledEvent

RETRY_PAUSE_SECONDS = 0.1
MAX_RESENT_PER_BEAT = 2_000

T = TypeVar("T")
# Returns those of the request ids that Postgres has; none when Postgres cannot be asked.
FindSettled = Callable[[list[str]], Awaitable[set[str]]]

logger = logging.getLogger(__name__)

SETTLED, PENDING, UNSAFE = "settled", "pending", "unsafe"
UNSAFE_CODE, UNSAFE_TEXT = (
    "usage_not_safe",
    "The usage of this request cannot be kept right now, so its end is withheld.",
)


class RunningRequest(Protocol):
    """What the settler needs of a request that holds money."""

    hold: Hold

    def write_checkpoint(self) -> None:
        """Put what is known by now into the hold."""

    def on_orphaned(self) -> None:
        """The hold was settled from its checkpoint: stop, and charge nothing more."""


@dataclass(slots=True)
class Unconfirmed:
    hold: Hold
    spooled: SpooledEvent
    input_tokens: int
    output_tokens: int
    stream_id: tuple[int, int] | None = None
    epoch: str = ""
    is_being_sent: bool = False


class Settler:
    def __init__(
        self, admission: AdmissionClient, spool: Spool, *, beat_seconds: float, settle_bound_seconds: float
    ) -> None:
        self._admission = admission
        self._spool = spool
        self._beat_seconds = beat_seconds
        self._settle_bound_seconds = settle_bound_seconds
        self._running: dict[str, RunningRequest] = {}
        self._unconfirmed: dict[str, Unconfirmed] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def running_count(self) -> int:
        return len(self._running)

    @property
    def unconfirmed_count(self) -> int:
        return len(self._unconfirmed)

    async def start(self, find_settled: FindSettled) -> None:
        """Take over what dead processes left in the spool, and begin to beat."""
        left_behind = {spooled.request_id: spooled for spooled in self._spool.adopt()}
        for request_id in await find_settled(list(left_behind)):
            self._spool.confirm(request_id)
            left_behind.pop(request_id, None)
        for spooled in left_behind.values():
            self.resend(spooled)
        self._task = asyncio.create_task(self._beat_for_ever())

    def resend(self, spooled: SpooledEvent) -> None:
        """Tell Redis of a spooled event again, at the next beat."""
        self._unconfirmed[spooled.request_id] = Unconfirmed(spooled.as_hold(), spooled, *spooled.used_tokens())

    async def stop(self) -> None:
        """Stop beating; what is unsettled stays in the spool for the next process."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for entry in list(self._unconfirmed.values()):
            if entry.stream_id is None:
                await self._try_settle(entry)

    def watch(self, request: RunningRequest) -> None:
        """Keep the hold of an admitted request alive from now on."""
        self._running[request.hold.request_id] = request

    async def settle(
        self, hold: Hold, *, cost_nanos: int, event: bytes, input_tokens: int, output_tokens: int, release: bool
    ) -> str:
        """Close a hold with its true cost; the usage is safe when this returns.

        Returns SETTLED once Redis has acknowledged, PENDING when Redis did not answer within the bound: then the event
        is in the spool, and it goes on trying in the background. UNSAFE when the event is in neither, because the disk
        refused it: whoever has the end of the reply must not send it.
        """
        spooled = SpooledEvent(hold.request_id, hold.organization_id, hold.key_id, cost_nanos, hold.day, release, event)
        is_spooled = self._spool.append(spooled)
        entry = Unconfirmed(hold, spooled, input_tokens, output_tokens)
        self._unconfirmed[hold.request_id] = entry
        self._running.pop(hold.request_id, None)
        outcome = await self._try_settle(entry)
        if outcome != PENDING:
            return outcome
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settle_bound_seconds):
                while outcome == PENDING:
                    await asyncio.sleep(RETRY_PAUSE_SECONDS)
                    outcome = await self._try_settle(entry)
        return outcome if is_spooled or outcome != PENDING else UNSAFE

    async def _try_settle(self, entry: Unconfirmed) -> str:
        spooled = entry.spooled
        entry.is_being_sent = True
        try:
            settled = await self._admission.settle(
                entry.hold,
                cost_nanos=spooled.cost_nanos,
                event=spooled.event,
                input_tokens=entry.input_tokens,
                output_tokens=entry.output_tokens,
                release=spooled.is_release,
            )
        except AdmissionUnavailableError:
            return PENDING
        except InvalidAmountError as error:
            logger.error("%s It is set aside.", error)
            self._spool.reject(spooled)
            self._forget(spooled.request_id)
            return PENDING
        finally:
            entry.is_being_sent = False
        entry.stream_id = _parse_stream_id(settled.stream_id)
        entry.epoch = settled.epoch
        return SETTLED

    async def _send_again(self, entry: Unconfirmed) -> None:
        try:
            await self._try_settle(entry)
        except Exception:
            # It stays in the spool, and is tried at the next beat: whatever is wrong with it holds up no other.
            logger.exception("The event of request %s could not be sent.", entry.spooled.request_id)

    def _forget(self, request_id: str) -> None:
        self._unconfirmed.pop(request_id, None)
        self._spool.confirm(request_id)

    async def _beat_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._beat()
            except AdmissionUnavailableError as error:
                logger.warning("The heartbeat could not reach Redis: %s", error)
            except Exception:
                logger.exception("The heartbeat failed; it goes on.")
            await asyncio.sleep(max(0.0, self._beat_seconds - (loop.time() - started)))

    async def _beat(self) -> None:
        self._spool.tidy()
        running = _by_shard(list(self._running.values()), lambda request: request.hold.organization_id)
        waiting = _by_shard(list(self._unconfirmed.values()), lambda entry: entry.hold.organization_id)
        if not running and not waiting:
            return
        shards = running.keys() | waiting.keys()
        beats = [self._beat_shard(shard, running.get(shard, []), waiting.get(shard, [])) for shard in shards]
        for shard, result in zip(shards, await asyncio.gather(*beats, return_exceptions=True), strict=True):
            if isinstance(result, AdmissionUnavailableError):
                logger.warning("The heartbeat of shard %d could not reach Redis: %s", shard, result)
            elif isinstance(result, Exception):
                logger.error("The heartbeat of shard %d failed; it goes on.", shard, exc_info=result)
            elif result is not None:
                raise result

    async def _beat_shard(self, shard: int, requests: list[RunningRequest], waiting: list[Unconfirmed]) -> None:
        for request in requests:
            _write_checkpoint(request)
        try:
            beaten = await self._admission.beat(shard, [request.hold for request in requests])
        except AdmissionUnavailableError:
            for request in requests:
                request.hold.checkpoint_is_new = True  # It may not have arrived.
            raise
        for request in requests:
            state = beaten.states[request.hold.request_id]
            if state == "missing" and request.hold.request_id in self._running:
                state = "ok" if await self._admission.readd(request.hold) else "orphaned"
            if state == "orphaned" and self._running.pop(request.hold.request_id, None) is not None:
                _tell_orphaned(request)
        bound = _parse_stream_id(beaten.settled_bound)
        resent = 0
        for entry in waiting:
            if entry.is_being_sent or entry.spooled.request_id not in self._unconfirmed:
                continue
            if entry.stream_id is None or entry.epoch != beaten.epoch:
                # Redis never acknowledged it, or is another one since: it may be lost there.
                if resent < MAX_RESENT_PER_BEAT:
                    await self._send_again(entry)
                resent += 1
            elif entry.stream_id < bound or (beaten.bound_is_inclusive and entry.stream_id == bound):
                self._forget(entry.spooled.request_id)


def _write_checkpoint(request: RunningRequest) -> None:
    try:
        request.write_checkpoint()
    except Exception:
        # Its hold lives on with the checkpoint before; the leases of all others are renewed in the same call.
        logger.exception("Request %s cannot say what it has used by now.", request.hold.request_id)


def _tell_orphaned(request: RunningRequest) -> None:
    try:
        request.on_orphaned()
    except Exception:
        logger.exception("Request %s could not be stopped.", request.hold.request_id)


def _by_shard(items: list[T], organization_id: Callable[[T], int]) -> dict[int, list[T]]:
    shards: dict[int, list[T]] = {}
    for item in items:
        shards.setdefault(shard_of(organization_id(item)), []).append(item)
    return shards


def _parse_stream_id(text: str) -> tuple[int, int]:
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence)
