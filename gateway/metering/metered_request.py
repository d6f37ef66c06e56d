"""The lease of one admitted request: its hold, what is checkpointed into it, and how it ends.

Every admitted request ends in exactly one of the ways below, whatever happens around it; docs/architecture.md has the
table of endings. If none is reached because this process dies, the hold is closed from its last checkpoint.
"""

import logging
import time
from typing import Protocol

from billing.admission.hold import Hold
from billing.money import format_usd
from billing.pricing.cost import Usage
from billing.usage_event import ESTIMATED, FAILED, ORPHAN, PARTIAL, PROVIDER, UsageEvent
from gateway.holds import HoldKeeper
from gateway.metering.attempts import AttemptLog
from gateway.metering.meter import NOTHING_READ, Bill, Meter
from gateway.metering.request_facts import RequestFacts
from gateway.protocol.usage_reading import UsageReading
from gateway.token_estimator import TokensPerByteEstimator

logger = logging.getLogger(__name__)


class RunningStream(Protocol):
    """What the lease needs of a stream while it runs."""

    def reading(self) -> UsageReading:
        """Return what is known of its usage by now."""

    def interrupt(self) -> None:
        """Make whoever reads it stop."""


class MeteredRequest:
    """Made when a request is admitted; ends with complete(), end_for_left_client(), break_off() or release(), once."""

    def __init__(
        self, facts: RequestFacts, hold: Hold, hold_keeper: HoldKeeper, token_estimator: TokensPerByteEstimator
    ) -> None:
        self.facts = facts
        self.hold = hold
        self.attempts = AttemptLog()
        self.first_byte_ms: int | None = None
        self.billed_usage = Usage()
        self.shown_usage: Usage | None = None  # Where what was billed is not what the provider reported.
        self.billed_nanos = 0
        self.shows_cost = False
        self.upstream_nanos = 0
        self.ending = ""  # A usage source, or "failed", once it has ended.
        self.has_ended = False
        self.is_orphaned = False
        self._meter = Meter(
            facts, hold_nanos=hold.amount_nanos, held_input_tokens=hold.input_tokens, token_estimator=token_estimator
        )
        self._hold_keeper = hold_keeper
        self._token_estimator = token_estimator
        self._stream: RunningStream | None = None
        self._checkpointed: UsageReading | None = None
        self.started = time.monotonic()
        self.admission_began = self.started
        self.close_began = self.close_seconds = 0.0

    @property
    def is_billed(self) -> bool:
        """True once it has ended as a reply that is paid for, whether or not its client got it."""
        return self.has_ended and self.ending != FAILED

    # --- what the hold keeper asks for ---------------------------------------------------------------------------

    def write_checkpoint(self) -> None:
        """Put into the hold what would be billed if this process died now: nothing before something was delivered.

        Where nothing was said since the last one, that stays.
        """
        if self._stream is None or self.has_ended:
            return
        reading = self._stream.reading()
        if reading == self._checkpointed:
            return
        self._checkpointed = reading
        usage = self._meter.estimate(reading)
        event = self._dated(self._meter.usage_event(usage, ORPHAN, self.attempts))
        self.hold.cost_so_far_nanos = event.cost_nanos
        self.hold.checkpoint = event.encode()
        self.hold.checkpoint_is_new = True

    def on_orphaned(self) -> None:
        """The hold was closed from its checkpoint: the upstream is closed, and nothing more is charged."""
        self.is_orphaned = True
        if self._stream is not None:
            self._stream.interrupt()

    # --- what the relay notes ------------------------------------------------------------------------------------

    def follow(self, stream: RunningStream) -> None:
        """Checkpoint what this stream has used from now on, and stop it should the hold be lost."""
        self._stream = stream

    def note_first_byte(self) -> None:
        if self.first_byte_ms is None:
            self.first_byte_ms = self._ms_since_start()

    def extra_usage(self) -> dict[str, str] | None:
        """Return what is added to `usage` for clients that asked: the cost in USD, as a decimal string."""
        return {"cost": format_usd(self.billed_nanos)} if self.shows_cost else None

    # --- endings -------------------------------------------------------------------------------------------------

    async def complete(self, reading: UsageReading) -> str:
        """The reply is whole: bill what the provider reported, or an estimate where it said nothing usable.

        Returns holds.CLOSED, PENDING or UNSAFE, like every ending.
        """
        bill = self._meter.bill_whole(reading)
        if bill.problem:
            logger.error("Request %s: %s; what is possible is billed.", self.hold.request_id, bill.problem)
            self.attempts.note_problem(bill.problem)
        if bill.source == PROVIDER and not reading.has_thinking:
            organization_id, model_id = self.facts.organization_id, self.facts.catalog_model.id
            output_tokens = reading.usage.output_tokens
            self._token_estimator.learn(organization_id, model_id, reading.delivered_bytes, output_tokens)
        return await self._bill(bill, reading)

    async def end_for_left_client(self, reading: UsageReading | None) -> str:
        """The client left and the upstream was closed: bill the input, and an estimate of what was delivered.

        Without a reading the upstream had accepted the call and said nothing yet: its input is estimated too. A reply
        that was complete all the same is billed as such.
        """
        if reading is not None and reading.is_complete:
            return await self.complete(reading)
        reading = reading or NOTHING_READ
        return await self._bill(self._meter.bill_delivered(reading, ESTIMATED), reading)

    async def break_off(self, reading: UsageReading) -> str:
        """The upstream broke in the middle: bill what was delivered, never above the hold."""
        return await self._bill(self._meter.bill_delivered(reading, PARTIAL), reading)

    async def release(self, error_code: str) -> str:
        """No upstream served it: bill nothing, keep the attempts."""
        event = self._meter.failed_event(error_code, self.attempts)
        return await self._close(event, Usage(), is_release=True)

    # --- inside --------------------------------------------------------------------------------------------------

    async def _bill(self, bill: Bill, reading: UsageReading) -> str:
        self.billed_usage = bill.usage
        self.shown_usage = None if bill.source == PROVIDER else bill.usage
        event = self._meter.usage_event(bill.usage, bill.source, self.attempts)
        event.stop_reason, event.upstream_request_id = reading.stop_reason, reading.upstream_message_id
        return await self._close(event, bill.usage, is_release=False)

    async def _close(self, event: UsageEvent, usage: Usage, *, is_release: bool) -> str:
        if self.has_ended:
            raise RuntimeError(f"Request {self.hold.request_id} ended twice.")
        self.has_ended = True
        self.billed_nanos = event.cost_nanos
        self.upstream_nanos = event.upstream_cost_nanos
        self.ending = FAILED if is_release else event.usage_source
        self.close_began = time.monotonic()
        outcome = await self._hold_keeper.close_hold(
            self.hold,
            cost_nanos=event.cost_nanos,
            event=self._dated(event).encode(),
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            release=is_release,
        )
        self.close_seconds = time.monotonic() - self.close_began
        return outcome

    def _dated(self, event: UsageEvent) -> UsageEvent:
        """Put into the event when the request was admitted, by Redis' clock, and how long it has taken."""
        event.admitted_at_ms = self.hold.admitted_at_ms or event.admitted_at_ms
        event.admitted_day = self.hold.day
        event.first_byte_ms = self.first_byte_ms
        event.total_ms = self._ms_since_start()
        return event

    def _ms_since_start(self) -> int:
        return int((time.monotonic() - self.started) * 1000)
