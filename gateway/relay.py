"""Relays one stream to one client, and decides how it ended. The table of endings is in docs/architecture.md.

The relay writes to the client itself, chunk by chunk: a client that reads slowly is waited for, so nothing piles up
here. The last events are held back until the usage is safe.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, cast

from gateway.errors import STOPPING_CODE, TYPE_BY_STATUS, GatewayError, stopping
from gateway.holds import UNSAFE, UNSAFE_CODE, UNSAFE_TEXT
from gateway.http.errors import UpstreamError, UpstreamTimeoutError
from gateway.metering.metered_request import MeteredRequest
from gateway.protocol.codec import NOTHING, RelayStep, StreamEnd
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.sse import PING, encode_error_event
from gateway.server.responses import SendChunk
from gateway.server.stalled_client import ClientStalledError, StalledClientTimer
from gateway.upstreams.calls import UpstreamCalls
from gateway.upstreams.exchange import OpenStream

LATE_USAGE_SECONDS = 1.0  # Of a reply that is whole, and whose usage was not among it.
ACCEPTANCE_SECONDS = 4.0
ACCEPTANCE_POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StreamTimeouts:
    """`ping_seconds`: silence before a ping. `drain_seconds`: how long a stream is read without a client, asked when
    it leaves. `stall_seconds`: how long a client may read nothing before it counts as having left.
    """

    ping_seconds: float
    idle_seconds: float
    total_seconds: float
    drain_seconds: Callable[[], float]
    stall_seconds: float


class StreamRelay:
    def __init__(
        self,
        metered: MeteredRequest,
        upstream_calls: UpstreamCalls,
        *,
        request_header: str,
        times: StreamTimeouts,
        run_in_background: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
        has_client_left: Callable[[], bool],
    ) -> None:
        self._metered = metered
        self._upstream_calls = upstream_calls
        self._request_header = request_header
        self._times = times
        self._run_in_background = run_in_background
        self._has_client_left = has_client_left
        self._opening: asyncio.Task[OpenStream] = asyncio.ensure_future(upstream_calls.open_stream())
        self._stream: OpenStream | None = None
        # What the upstream said last, until the client has it and it was acted upon.
        self._step = NOTHING
        self._now = asyncio.get_running_loop().time
        self._ends_at = self._now() + times.total_seconds
        self._said_until = 0.0  # Until when usage is waited for behind a reply that is whole; 0 while it is not.
        self._ping_at = self._now() + times.ping_seconds

    async def open(self) -> None:
        """Wait for the stream to begin, for as long as silence is harmless. Raises GatewayError; then nothing is
        billed.

        Cancelled when the client leaves meanwhile, or this process stops by force.
        """
        try:
            done, _ = await asyncio.wait((self._opening,), timeout=self._times.ping_seconds)
            if done:
                await self._take_over()
        except GatewayError:
            raise
        except asyncio.CancelledError:
            if not self._has_client_left():
                await self._stop()
                raise stopping() from None
            self._leave()
            raise
        except Exception:
            await self._close_after_fault()
            raise

    async def run(self, send: SendChunk) -> None:
        """Write the stream to the client and bill it. Cancelled when the client leaves, or the process must stop."""
        watch = StalledClientTimer(send, stall_seconds=self._times.stall_seconds)
        try:
            await self._run(watch.send)
        except GatewayError as error:
            await send(self._error_event(TYPE_BY_STATUS[error.status], error.code, error.message))
        except asyncio.CancelledError:
            if self._has_client_left():
                self._leave()
                raise
            await self._stop()
            told = stopping()
            await send(self._error_event(TYPE_BY_STATUS[told.status], told.code, told.message))
        except (ClientStalledError, OSError):
            self._leave()
            raise
        except Exception:
            logger.exception("Request %s failed.", self._metered.hold.request_id)
            await self._close_after_fault()
            await send(self._error_event("api_error", "internal_error", "An internal error occurred."))
        finally:
            watch.stop()

    async def _run(self, send: SendChunk) -> None:
        while self._stream is None:
            done, _ = await asyncio.wait((self._opening,), timeout=self._times.ping_seconds)
            if done:
                await self._take_over()
            else:
                await self._send(send, PING)
        await self._relay(self._stream, send)

    async def _send(self, send: SendChunk, chunk: bytes) -> None:
        await send(chunk)
        self._ping_at = self._now() + self._times.ping_seconds

    async def _take_over(self) -> None:
        """Take the stream from the task that opened it; release the hold when there is none."""
        try:
            self._stream = await self._opening
        except GatewayError as error:
            await self._metered.release(error.code)
            raise
        self._upstream_calls.forget_prompt()
        self._step = self._stream.first
        self._metered.follow(self._stream)

    async def _relay(self, stream: OpenStream, send: SendChunk) -> None:
        """Act on each step, and read the next. May be called again after it was cancelled, and goes on from there."""
        while True:
            step = self._step
            if step.forward:
                self._metered.note_first_byte()
                await self._send(send, step.forward)
            if step.end is not None:
                await self._finish(stream, step.end, send)
                return
            if step.failure is not None:
                await self._break_off(stream, step.failure, send)
                return
            self._step = await self._read_next(stream, send)
            if self._metered.is_orphaned:
                await stream.aclose()
                await send(self._orphaned_event())
                return
            if self._step.end is None and self._now() > self._ends_at:
                endless = UpstreamProtocolError("It never ends.", code="upstream_timeout")
                self._step = self._step._replace(failure=endless)

    async def _read_next(self, stream: OpenStream, send: SendChunk) -> RelayStep:
        """Return what the upstream says next. While nothing comes for the client, it gets a ping now and then."""
        decoder = stream.decoder
        silent_at = self._now() + self._times.idle_seconds
        if decoder.is_said:
            silent_at = self._said_until = self._said_until or self._now() + LATE_USAGE_SECONDS
        while True:
            if self._now() >= self._ping_at:
                await self._send(send, PING)
            try:
                chunk = await stream.response.next_piece(timeout_seconds=min(self._ping_at, silent_at) - self._now())
            except UpstreamTimeoutError:
                if self._now() < silent_at:
                    continue
                if decoder.is_said:
                    return decoder.flush()
                reason = f"No data for {self._times.idle_seconds:g} s."
                return RelayStep(b"", failure=UpstreamProtocolError(reason, code="upstream_timeout"))
            except UpstreamError as error:
                if decoder.is_said:
                    return decoder.flush()
                return RelayStep(b"", failure=UpstreamProtocolError(str(error), code="upstream_broken"))
            return decoder.flush() if chunk is None else decoder.feed(chunk)

    async def _finish(self, stream: OpenStream, end: StreamEnd, send: SendChunk) -> None:
        """The reply is whole. Its last events go out once the usage is safe, or a bound has passed."""
        await stream.aclose()
        reading = stream.reading()
        outcome = await self._metered.complete(reading)
        if outcome == UNSAFE:
            await send(self._error_event("api_error", UNSAFE_CODE, UNSAFE_TEXT))
            return
        await send(end.encode(usage=self._metered.shown_usage, extra_usage=self._metered.extra_usage()))

    async def _break_off(self, stream: OpenStream, failure: UpstreamProtocolError, send: SendChunk) -> None:
        logger.warning("Request %s broke off: %s", self._metered.hold.request_id, failure.log_text)
        await stream.aclose()
        self._metered.attempts.note_broken()
        self._upstream_calls.note_broken(stream, failure)
        await self._metered.break_off(stream.reading())
        await send(self._error_event(failure.error_type, failure.code, failure.client_message))

    async def _close_after_fault(self) -> None:
        """A fault of our own: bill what was delivered, hold nothing on."""
        if self._stream is not None:
            await self._stream.aclose()
        if self._metered.has_ended:
            return
        if self._stream is not None:
            await self._metered.break_off(self._stream.reading())
        else:
            self._opening.cancel()
            await self._metered.release("internal_error")

    # --- when this process stops by force ----------------------------------------------------------------------------

    async def _stop(self) -> None:
        """End the request with what was delivered, as its client is told: it is not the client that left."""
        cast("asyncio.Task[None]", asyncio.current_task()).uncancel()
        # The process waits for its background work, and for nothing else any more.
        await self._run_in_background(self._close_for_stop())

    async def _close_for_stop(self) -> None:
        if self._stream is None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError, GatewayError):
                self._stream = await self._opening
        if self._stream is not None:
            await self._stream.aclose()
        if self._metered.has_ended:
            return
        if self._stream is None:
            await self._metered.release(STOPPING_CODE)
        else:
            await self._metered.break_off(self._stream.reading())

    # --- when the client has left ------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """Hand what must still be done to the background: the client's task is being cancelled."""
        if not self._metered.has_ended:
            self._run_in_background(self._end_without_client(self._times.drain_seconds()))

    async def _end_without_client(self, drain_seconds: float) -> None:
        try:
            await self._drain_or_stop(drain_seconds)
        except Exception:
            logger.exception("Request %s failed after its client had left.", self._metered.hold.request_id)
            await self._close_after_fault()

    async def _drain_or_stop(self, drain_seconds: float) -> None:
        route = self._stream.route if self._stream is not None else None
        drains = route.bills_when_cancelled if route is not None else self._upstream_calls.drains_anywhere
        if drains and not self._metered.is_orphaned:
            try:
                async with asyncio.timeout(drain_seconds):
                    await self._run(_to_nobody)
            except (TimeoutError, GatewayError):
                pass
        if self._metered.has_ended:
            return
        if self._stream is None and not await self._stop_opening():
            await self._metered.release("client_left")
            return
        if self._stream is not None:
            await self._stream.aclose()
        if not self._metered.is_orphaned:
            await self._metered.end_for_left_client(self._stream.reading() if self._stream else None)

    async def _stop_opening(self) -> bool:
        """Stop calling upstreams. Returns whether one had accepted the call, and so may charge for it.

        Whether it has, and what it counts as input, is waited for a little: taken back before, the call would cost us
        what nobody pays for.
        """
        self._upstream_calls.note_client_left()
        ends_at = asyncio.get_running_loop().time() + ACCEPTANCE_SECONDS
        while not self._upstream_calls.is_accepted and asyncio.get_running_loop().time() < ends_at:
            if (await asyncio.wait((self._opening,), timeout=ACCEPTANCE_POLL_SECONDS))[0]:
                break
        was_accepted = self._upstream_calls.is_accepted
        self._opening.cancel()
        with contextlib.suppress(asyncio.CancelledError, GatewayError):
            self._stream = await self._opening
        return was_accepted

    # --- error events ------------------------------------------------------------------------------------------------

    def _orphaned_event(self) -> bytes:
        return self._error_event(
            "api_error",
            "request_orphaned",
            "The request was closed, because its gateway was out of touch for too long.",
        )

    def _error_event(self, error_type: str, code: str, message: str) -> bytes:
        return encode_error_event(error_type=error_type, code=code, message=message, request_id=self._request_header)


async def _to_nobody(chunk: bytes) -> None:
    """Take the place of a client that has left."""
