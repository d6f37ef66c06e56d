"""Sees every admitted request to its end in Redis: closes its hold, tries again, keeps its hold alive until then.

An event goes to the spool first and then to Redis. From there on it is known as `unconfirmed` until settlement has it
in Postgres: should Redis be replaced meanwhile, it is sent again. Postgres' unique key tells doubled events apart.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from billing.admission.client import AdmissionClient
from billing.admission.errors import AdmissionUnavailableError, InvalidAmountError
from billing.admission.hold import Hold
from billing.shards import shard_of
from gateway.metrics import CLOSE, observe
from gateway.spool import Spool, SpooledEvent

RETRY_PAUSE_SECONDS = 0.1
MAX_RESENT_PER_HEARTBEAT = 2_000
# How many holds are renewed together, before other work has its turn: a millisecond of this loop, and less of Redis.
MAX_RENEWED_TOGETHER = 50

T = TypeVar("T")
# Returns those of the request ids that Postgres has; none when Postgres cannot be asked.
FindSettled = Callable[[list[str]], Awaitable[set[str]]]
Part = tuple[int, "list[RunningRequest]", "list[Unconfirmed]"]  # Of one shard, renewed by one script.

logger = logging.getLogger(__name__)

CLOSED, PENDING, UNSAFE = "closed", "pending", "unsafe"
REJECTED = "rejected"  # Redis will never take the event; it is set aside for a person.
UNSAFE_CODE, UNSAFE_TEXT = (
    "usage_not_safe",
    "The usage of this request cannot be recorded right now, so the end of the reply is withheld.",
)


class RunningRequest(Protocol):
    """What the hold_keeper needs of a request that holds money."""

    hold: Hold
    started: float  # By time.monotonic().

    def write_checkpoint(self) -> None:
        """Put what is known by now into the hold."""

    def on_orphaned(self) -> None:
        """The hold was closed from its checkpoint: stop, and charge nothing more."""


@dataclass(slots=True)
class Unconfirmed:
    hold: Hold
    spooled: SpooledEvent
    input_tokens: int
    output_tokens: int
    stream_id: tuple[int, int] | None = None
    epoch: str = ""
    is_being_sent: bool = False


class HoldKeeper:
    """`longest_seconds`: how long a request can run at most. One that runs for longer was forgotten, by a fault in our
    own code; its hold is left to expire, as that of a process that died.
    """

    def __init__(
        self,
        admission: AdmissionClient,
        spool: Spool,
        *,
        heartbeat_seconds: float,
        close_bound_seconds: float,
        longest_seconds: float,
    ) -> None:
        self.longest_seconds = longest_seconds
        self._admission = admission
        self._spool = spool
        self._heartbeat_seconds = heartbeat_seconds
        self._close_bound_seconds = close_bound_seconds
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
        """Take over what dead processes left in the spool, and begin to renew leases."""
        left_behind = {spooled.request_id: spooled for spooled in self._spool.adopt()}
        for request_id in await find_settled(list(left_behind)):
            self._spool.confirm(request_id)
            left_behind.pop(request_id, None)
        for spooled in left_behind.values():
            self.resend(spooled)
        self._task = asyncio.create_task(self._keep_renewing())

    def resend(self, spooled: SpooledEvent) -> None:
        """Tell Redis of a spooled event again, at the next heartbeat."""
        self._unconfirmed[spooled.request_id] = Unconfirmed(spooled.as_hold(), spooled, *spooled.used_tokens())

    async def stop(self) -> None:
        """Stop renewing; what is unsettled stays in the spool for the next process."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for entry in list(self._unconfirmed.values()):
            if entry.stream_id is None and await self._try_close(entry) == PENDING:
                return  # Redis is away: each would be waited for in turn.

    def watch(self, request: RunningRequest) -> None:
        """Keep the hold of an admitted request alive from now on."""
        self._running[request.hold.request_id] = request

    async def close_hold(
        self, hold: Hold, *, cost_nanos: int, event: bytes, input_tokens: int, output_tokens: int, release: bool
    ) -> str:
        """Close a hold with its true cost; the usage is safe when this returns.

        Returns CLOSED once Redis has acknowledged, PENDING when Redis did not answer within the bound: then the event
        is in the spool, and it goes on trying in the background. UNSAFE when the event is in neither, because the disk
        refused it: whoever has the end of the reply must not send it.
        """
        spooled = SpooledEvent(hold.request_id, hold.organization_id, hold.key_id, cost_nanos, hold.day, release, event)
        is_spooled = self._spool.append(spooled)
        entry = Unconfirmed(hold, spooled, input_tokens, output_tokens)
        self._unconfirmed[hold.request_id] = entry
        self._running.pop(hold.request_id, None)
        started = time.monotonic()
        try:
            return await self._close_within_bound(entry, is_spooled=is_spooled)
        finally:
            observe(CLOSE, time.monotonic() - started)

    async def _close_within_bound(self, entry: Unconfirmed, *, is_spooled: bool) -> str:
        outcome = await self._try_close(entry)
        if outcome == PENDING:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._close_bound_seconds):
                    while outcome == PENDING:
                        await asyncio.sleep(RETRY_PAUSE_SECONDS)
                        outcome = await self._try_close(entry)
        if outcome == CLOSED:
            return CLOSED
        return PENDING if is_spooled else UNSAFE

    async def _try_close(self, entry: Unconfirmed) -> str:
        spooled = entry.spooled
        entry.is_being_sent = True
        try:
            closed = await self._admission.close_hold(
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
            return REJECTED
        finally:
            entry.is_being_sent = False
        entry.stream_id = _parse_stream_id(closed.stream_id)
        entry.epoch = closed.epoch
        return CLOSED

    async def _send_again(self, entry: Unconfirmed) -> None:
        try:
            await self._try_close(entry)
        except Exception:
            # It stays in the spool, and is tried at the next heartbeat: whatever is wrong with it holds up no other.
            logger.exception("The event of request %s could not be sent.", entry.spooled.request_id)

    def _forget(self, request_id: str) -> None:
        self._unconfirmed.pop(request_id, None)
        self._spool.confirm(request_id)

    async def _keep_renewing(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            try:
                await self._renew_all()
            except AdmissionUnavailableError as error:
                logger.warning("The heartbeat could not reach Redis: %s", error)
            except Exception:
                logger.exception("The heartbeat failed; the next one tries again.")
            await asyncio.sleep(max(0.0, self._heartbeat_seconds - (loop.time() - started)))

    async def _renew_all(self) -> None:
        """Renew every lease once, a few together, spread over the time of one heartbeat."""
        self._spool.tidy()
        self._give_up_forgotten()
        running = _by_shard(list(self._running.values()), lambda request: request.hold.organization_id)
        waiting = _by_shard(list(self._unconfirmed.values()), lambda entry: entry.hold.organization_id)
        turns = _take_turns(running, waiting)
        pause_seconds = self._heartbeat_seconds / max(1, len(turns))
        renewals: list[tuple[int, asyncio.Task[None]]] = []
        try:
            for number, turn in enumerate(turns):
                if number:
                    await asyncio.sleep(pause_seconds)
                renewals += [(part[0], asyncio.create_task(self._renew_shard(*part))) for part in turn]
            results = await asyncio.gather(*(task for _, task in renewals), return_exceptions=True)
        finally:
            for _, task in renewals:
                task.cancel()
        for (shard, _), result in zip(renewals, results, strict=True):
            if isinstance(result, AdmissionUnavailableError):
                logger.warning("The heartbeat of shard %d could not reach Redis: %s", shard, result)
            elif isinstance(result, Exception):
                logger.error("The heartbeat of shard %d failed; the next one tries again.", shard, exc_info=result)
            elif result is not None:
                raise result

    def _give_up_forgotten(self) -> None:
        """Renew no longer what runs for longer than any request can."""
        oldest = time.monotonic() - self.longest_seconds
        for request in [request for request in self._running.values() if request.started < oldest]:
            logger.error("Request %s was never ended; its hold is left to expire.", request.hold.request_id)
            self._running.pop(request.hold.request_id, None)
            _tell_orphaned(request)

    async def _renew_shard(self, shard: int, requests: list[RunningRequest], waiting: list[Unconfirmed]) -> None:
        requests = [request for request in requests if request.hold.request_id in self._running]
        for request in requests:
            _write_checkpoint(request)
        try:
            renewed = await self._admission.renew_leases(shard, [request.hold for request in requests])
        except AdmissionUnavailableError:
            for request in requests:
                request.hold.checkpoint_is_new = True  # It may not have arrived.
            raise
        for request in requests:
            state = renewed.states[request.hold.request_id]
            if state == "missing" and request.hold.request_id in self._running:
                state = "ok" if await self._admission.restore_hold(request.hold) else "orphaned"
            if state == "orphaned" and self._running.pop(request.hold.request_id, None) is not None:
                _tell_orphaned(request)
        bound = _parse_stream_id(renewed.settled_bound)
        resent = 0
        for entry in waiting:
            if entry.is_being_sent or entry.spooled.request_id not in self._unconfirmed:
                continue
            if entry.stream_id is None or entry.epoch != renewed.epoch:
                # Redis never acknowledged it, or is another one since: it may be lost there.
                if resent < MAX_RESENT_PER_HEARTBEAT:
                    await self._send_again(entry)
                resent += 1
            elif entry.stream_id < bound or (renewed.bound_is_inclusive and entry.stream_id == bound):
                self._forget(entry.spooled.request_id)


def _write_checkpoint(request: RunningRequest) -> None:
    try:
        request.write_checkpoint()
    except Exception:
        # Its hold lives on with the checkpoint before; the leases of all others are renewed in the same call.
        logger.exception("Request %s cannot report its usage so far.", request.hold.request_id)


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


def _take_turns(running: dict[int, list[RunningRequest]], waiting: dict[int, list[Unconfirmed]]) -> list[list[Part]]:
    """Divide what is to be renewed into turns of MAX_RENEWED_TOGETHER; what waits goes with its shard's first part."""
    turns: list[list[Part]] = []
    room = 0
    for shard in sorted(running.keys() | waiting.keys()):
        requests, entries = running.get(shard, []), waiting.get(shard, [])
        while requests or entries:
            if not turns or room <= 0:
                turns.append([])
                room = MAX_RENEWED_TOGETHER
            turns[-1].append((shard, requests[:room], entries))
            requests, entries, room = requests[room:], [], room - max(1, len(requests[:room]))
    return turns


def _parse_stream_id(text: str) -> tuple[int, int]:
    milliseconds, _, sequence = text.partition("-")
    return int(milliseconds), int(sequence)
