"""One admitted request and its money: what it has used so far, what it costs, and how it ends.

Every admitted request ends in exactly one of the ways below, whatever happens around it; docs/architecture.md has the
table of endings. If none is reached because this process dies, the hold is settled from its last checkpoint.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, TypedDict

from billing.admission.client import Hold
from billing.catalog.snapshot import OfferedModel
from billing.money import format_usd
from billing.pricing import IMAGE, MissingPriceError, PriceTable, Usage, cost_nanos
from billing.usage_event import BILLED, BOUNDED, ESTIMATED, FAILED, ORPHAN, PARTIAL, PROVIDER, UsageEvent
from gateway.prompt_bounds import PromptBounds
from gateway.protocol.reading import UsageReading, UsageState
from gateway.settler import Settler
from gateway.token_density import TokenDensity

logger = logging.getLogger(__name__)

IN_FLIGHT, SERVED, BROKEN = "in_flight", "served", "broken_mid_stream"
# Attempts that were given up after the upstream had been asked: it says nothing, and may charge for the prompt.
GIVEN_UP = ("upstream_timeout", "upstream_broken")
NOTHING_READ = UsageReading(
    state=UsageState.ABSENT,
    usage=Usage(),
    has_input=False,
    has_output=False,
    delivered_bytes=0,
    is_complete=False,
    stop_reason="",
    upstream_message_id="",
)


@dataclass(slots=True)
class Attempt:
    """One call to an upstream. `status` is its HTTP status, 0 while none came; `outcome` a word for people."""

    upstream: str
    started: float = field(default_factory=time.monotonic)
    status: int = 0
    outcome: str = IN_FLIGHT
    duration_ms: int = 0
    upstream_cost_nanos: int = 0
    problem: str = ""  # What was wrong with the usage that it reported.

    def end(self, outcome: str) -> None:
        self.outcome = outcome
        self.duration_ms = int((time.monotonic() - self.started) * 1000)

    def as_json(self) -> dict[str, Any]:
        values = {
            "upstream": self.upstream,
            "status": self.status,
            "outcome": self.outcome,
            "duration_ms": self.duration_ms,
            "upstream_cost_nanos": self.upstream_cost_nanos,
        }
        return {**values, "problem": self.problem} if self.problem else values


class RequestFacts(NamedTuple):
    """What is known of a request before it is admitted, and does not change."""

    request_id: str
    organization_id: int
    key_id: int
    offered: OfferedModel
    price: PriceTable
    factor_ppm: int
    received_at: datetime
    max_tokens: int
    body_bytes: int
    images: int
    is_streamed: bool
    end_user: str
    client: str
    web_searches: int
    prompt_components: tuple[str, ...]
    bounds: PromptBounds

    @property
    def extras(self) -> "WorstCaseExtras":
        """What the worst case knows of a request besides its tokens."""
        return {
            "factor_ppm": self.factor_ppm,
            "prompt_components": self.prompt_components,
            "images": self.images if self.price.has_price(IMAGE) else 0,
            "web_searches": self.web_searches,
        }


class WorstCaseExtras(TypedDict):
    factor_ppm: int
    prompt_components: tuple[str, ...]
    images: int
    web_searches: int


class MeteredRequest:
    """Made when a request is admitted; ends with complete(), end_for_left_client(), break_off() or release(), once."""

    def __init__(self, facts: RequestFacts, hold: Hold, settler: Settler, density: TokenDensity) -> None:
        self.facts = facts
        self.hold = hold
        self.attempts: list[Attempt] = []
        self.first_byte_ms: int | None = None
        # What is known by now of a stream's usage, for checkpoints; and how to stop it.
        self.read_now: Callable[[], UsageReading] | None = None
        self.interrupt: Callable[[], None] | None = None
        self.billed_usage = Usage()
        self.shown_usage: Usage | None = None  # Where what was billed is not what the provider reported.
        self.billed_nanos = 0
        self.shows_cost = False
        self.has_ended = False
        self.is_orphaned = False
        self._settler = settler
        self._density = density
        self._started = time.monotonic()

    # --- what the settler asks for ------------------------------------------------------------------------------

    def write_checkpoint(self) -> None:
        """Put into the hold what would be billed if this process died now: nothing before something was delivered."""
        if self.read_now is None or self.has_ended:
            return
        usage = self._estimated_usage(self.read_now())
        event = self._event(usage, ORPHAN)
        self.hold.cost_so_far_nanos = event.cost_nanos
        self.hold.checkpoint = event.encode()
        self.hold.checkpoint_is_new = True

    def on_orphaned(self) -> None:
        """The hold was settled from its checkpoint: the upstream is closed, and nothing more is charged."""
        self.is_orphaned = True
        if self.interrupt is not None:
            self.interrupt()

    # --- what the relay notes ------------------------------------------------------------------------------------

    def note_first_byte(self) -> None:
        if self.first_byte_ms is None:
            self.first_byte_ms = int((time.monotonic() - self._started) * 1000)

    def note_broken(self) -> None:
        if self.attempts:
            self.attempts[-1].end(BROKEN)

    def extra_usage(self) -> dict[str, str] | None:
        """Return what is added to `usage` for callers who asked: the cost in USD, as a decimal string."""
        return {"cost": format_usd(self.billed_nanos)} if self.shows_cost else None

    # --- endings ------------------------------------------------------------------------------------------------

    async def complete(self, reading: UsageReading) -> str:
        """The reply is whole: bill what the provider reported, or an estimate where it said nothing usable.

        Returns settler.SETTLED, PENDING or UNSAFE, like every ending.
        """
        if reading.state is not UsageState.FINAL or says_too_little(reading):
            return await self._bill(self._estimated_usage(reading), ESTIMATED, reading)
        possible, problem = bound_usage(reading.usage, self.facts)
        if problem:
            self._note_problem(problem)
            return await self._bill(possible, BOUNDED, reading)
        if not reading.has_thinking:
            facts = self.facts
            self._density.learn(
                facts.organization_id, facts.offered.id, reading.delivered_bytes, reading.usage.output_tokens
            )
        return await self._bill(reading.usage, PROVIDER, reading)

    async def end_for_left_client(self, reading: UsageReading | None) -> str:
        """The client left and the upstream was closed: bill the input, and an estimate of what was delivered.

        Without a reading the upstream had accepted the call and said nothing yet: its input is estimated too. A reply
        that was complete all the same is billed as such.
        """
        if reading is not None and reading.is_complete:
            return await self.complete(reading)
        reading = reading or NOTHING_READ
        return await self._bill(self._estimated_usage(reading), ESTIMATED, reading)

    async def break_off(self, reading: UsageReading) -> str:
        """The upstream broke in the middle: bill what was delivered, never above the hold."""
        return await self._bill(self._estimated_usage(reading), PARTIAL, reading)

    async def release(self, error_code: str) -> str:
        """No upstream served it: bill nothing, keep the attempts."""
        event = self._event(Usage(), PROVIDER)
        event.outcome, event.cost_nanos, event.error_code = FAILED, 0, error_code
        return await self._close(event, Usage(), is_release=True)

    # --- inside -------------------------------------------------------------------------------------------------

    async def _bill(self, usage: Usage, source: str, reading: UsageReading) -> str:
        if self.facts.images and self.facts.price.has_price(IMAGE):
            usage = replace(usage, images=self.facts.images)
        self.billed_usage = usage
        self.shown_usage = None if source == PROVIDER else usage
        event = self._event(usage, source)
        event.stop_reason, event.upstream_request_id = reading.stop_reason, reading.upstream_message_id
        return await self._close(event, usage, is_release=False)

    async def _close(self, event: UsageEvent, usage: Usage, *, is_release: bool) -> str:
        if self.has_ended:
            raise RuntimeError(f"Request {self.hold.request_id} ended twice.")
        self.has_ended = True
        self.billed_nanos = event.cost_nanos
        return await self._settler.settle(
            self.hold,
            cost_nanos=event.cost_nanos,
            event=event.encode(),
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.output_tokens,
            release=is_release,
        )

    def _estimated_usage(self, reading: UsageReading) -> Usage:
        """Return the input as reported, or else estimated, and the output by what was delivered; within the hold.

        No prompt is empty: zero input tokens are an upstream's way to say nothing.
        """
        said = reading.has_input and reading.usage.prompt_tokens > 0
        searches = min(reading.usage.web_searches, self.facts.web_searches)
        usage = reading.usage if said else Usage(input_tokens=self._estimated_input())
        usage = replace(usage, web_searches=searches)
        output = self._density.tokens(self.facts.organization_id, self.facts.offered.id, reading.delivered_bytes)
        if reading.has_output:
            output = max(output, reading.usage.output_tokens)
        output = min(output, self.facts.max_tokens)
        if self._cost(replace(usage, output_tokens=0)) > self.hold.amount_nanos:
            # More than the body can hold was reported.
            usage = Usage(input_tokens=self._estimated_input(), web_searches=searches)
        usage = replace(usage, output_tokens=output)
        if self._cost(usage) > self.hold.amount_nanos:
            usage = replace(usage, output_tokens=self._output_within_hold(usage))
        return usage

    def _estimated_input(self) -> int:
        """The hold's input tokens are a bound, at two bytes a token; text is nearer to four."""
        return min(self.hold.input_tokens, typical_input_tokens(self.facts, self._density))

    def _note_problem(self, problem: str) -> None:
        logger.error("Request %s: %s; what is possible is billed.", self.hold.request_id, problem)
        if self.attempts:
            self.attempts[-1].problem = problem

    def _output_within_hold(self, usage: Usage) -> int:
        """Return the most output tokens that the hold covers beside the input of `usage`; 0 when it covers none."""
        low, high = 0, usage.output_tokens
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(replace(usage, output_tokens=middle)) <= self.hold.amount_nanos:
                low = middle
            else:
                high = middle - 1
        return low

    def _cost(self, usage: Usage) -> int:
        try:
            return cost_nanos(usage, self.facts.price, self.facts.factor_ppm)
        except MissingPriceError as error:
            # Priced tools are refused at the door where they have no price; an upstream that uses one unasked pays.
            logger.error("Request %s: %s; it is not charged.", self.hold.request_id, error)
            return cost_nanos(replace(usage, web_searches=0, images=0), self.facts.price, self.facts.factor_ppm)

    def _event(self, usage: Usage, source: str) -> UsageEvent:
        facts, hold = self.facts, self.hold
        upstream = self.attempts[-1].upstream if self.attempts else ""
        for attempt in self.attempts:
            if attempt.outcome in GIVEN_UP:
                prompt = Usage(input_tokens=self._estimated_input())
                attempt.upstream_cost_nanos = self._upstream_cost(attempt.upstream, prompt)
        if self.attempts and self.attempts[-1].outcome in (IN_FLIGHT, SERVED, BROKEN):
            self.attempts[-1].upstream_cost_nanos = self._upstream_cost(upstream, usage)
        return UsageEvent(
            request_id=hold.request_id,
            organization_id=hold.organization_id,
            key_id=hold.key_id,
            language_model_id=facts.offered.language_model_id,
            model_id=facts.offered.id,
            price_version_id=facts.price.price_version_id,
            factor_ppm=facts.factor_ppm,
            hold_nanos=hold.amount_nanos,
            admitted_at_ms=hold.admitted_at_ms or int(facts.received_at.timestamp() * 1000),
            admitted_day=hold.day,
            outcome=BILLED,
            usage_source=source,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            cache_write_5m_tokens=usage.cache_write_5m_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            images=usage.images,
            web_searches=usage.web_searches,
            cost_nanos=self._cost(usage),
            upstream=upstream,
            upstream_cost_nanos=sum(attempt.upstream_cost_nanos for attempt in self.attempts),
            attempts=[attempt.as_json() for attempt in self.attempts],
            is_streamed=facts.is_streamed,
            first_byte_ms=self.first_byte_ms,
            total_ms=int((time.monotonic() - self._started) * 1000),
            end_user=facts.end_user,
            client=facts.client,
        )

    def _upstream_cost(self, upstream: str, usage: Usage) -> int:
        return upstream_cost_nanos(self.facts.offered, upstream, usage, self.facts.received_at)


def typical_input_tokens(facts: RequestFacts, density: TokenDensity) -> int:
    """Return how many input tokens the request probably has; its images count too."""
    return density.input_tokens(facts.body_bytes, facts.images, facts.offered.max_image_tokens)


def says_too_little(reading: UsageReading) -> bool:
    """Return True when something was generated, and the counts say that nothing was, or from nothing."""
    usage = reading.usage
    if usage.output_tokens == 0:
        return reading.delivered_bytes > 0
    return usage.prompt_tokens == 0


def bound_usage(usage: Usage, facts: RequestFacts) -> tuple[Usage, str]:
    """Return what of a report is possible, and what is wrong with it: "" when all of it can be true.

    A prompt beyond what the model takes, or the body can hold, is billed as the hold has it; more output than the
    model writes, or searches than were asked for, as those that were.
    """
    bounds, problems = facts.bounds, []
    if usage.prompt_tokens > bounds.most_prompt_tokens:
        problems.append(f"{usage.prompt_tokens} prompt tokens reported, {bounds.most_prompt_tokens} are possible")
        usage = Usage(bounds.held_prompt_tokens, usage.output_tokens, web_searches=usage.web_searches)
    if usage.output_tokens > bounds.most_output_tokens:
        problems.append(f"{usage.output_tokens} output tokens reported, {bounds.most_output_tokens} are possible")
        usage = replace(usage, output_tokens=bounds.held_output_tokens)
    if usage.web_searches > facts.web_searches:
        problems.append(f"{usage.web_searches} searches reported, {facts.web_searches} were asked for")
        usage = replace(usage, web_searches=facts.web_searches)
    return usage, "; ".join(problems)


def upstream_cost_nanos(offered: OfferedModel, upstream: str, usage: Usage, moment: datetime) -> int:
    """Return what the provider charges us for `usage`, in nano-dollars; 0 where its price is not known."""
    price = offered.upstream_price_at(upstream, moment)
    if price is None:
        return 0
    try:
        return cost_nanos(usage, price)
    except MissingPriceError:
        return cost_nanos(replace(usage, web_searches=0, images=0), price)


def orphan_event(facts: RequestFacts, hold_nanos: int, estimated_input_tokens: int) -> bytes:
    """Return the event that stands for a request whose gateway died before its first checkpoint: it costs nothing.

    What the provider may charge us for the input is its upstream cost, and goes to orphan loss.
    """
    usage = Usage(input_tokens=estimated_input_tokens)
    upstream = facts.offered.routes[0].upstream_name
    event = UsageEvent(
        request_id=facts.request_id,
        organization_id=facts.organization_id,
        key_id=facts.key_id,
        language_model_id=facts.offered.language_model_id,
        model_id=facts.offered.id,
        price_version_id=facts.price.price_version_id,
        factor_ppm=facts.factor_ppm,
        hold_nanos=hold_nanos,
        admitted_at_ms=int(facts.received_at.timestamp() * 1000),
        usage_source=ORPHAN,
        upstream=upstream,
        upstream_cost_nanos=upstream_cost_nanos(facts.offered, upstream, usage, facts.received_at),
        is_streamed=facts.is_streamed,
        end_user=facts.end_user,
        client=facts.client,
    )
    return event.encode()
