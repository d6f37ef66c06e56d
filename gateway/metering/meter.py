"""From what was read of a reply to usage, cost and event. Pure: no clock, no Redis.

What a provider reports is billed where it can be true. Where it is missing or broken off, the input is estimated from
the body and the output from what was delivered, and an estimate never costs more than the hold.
"""

import logging
from typing import Any, NamedTuple

from billing.pricing.cost import IMAGE, MissingPriceError, Usage, cost_nanos
from billing.usage_event import BOUNDED, ESTIMATED, FAILED, ORPHAN, PROVIDER, UsageEvent, encode_fields
from gateway.metering.attempts import Attempt, AttemptLog
from gateway.metering.request_facts import RequestFacts
from gateway.protocol.usage_reading import UsageReading, UsageState
from gateway.token_estimator import TokensPerByteEstimator

logger = logging.getLogger(__name__)

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


class Bill(NamedTuple):
    """What a request is billed for, and on whose word. `problem` says what was wrong with a provider's report."""

    usage: Usage
    source: str
    problem: str = ""


class Meter:
    """Measures one admitted request. The estimator is only asked here; whoever closes the hold teaches it."""

    def __init__(
        self,
        facts: RequestFacts,
        *,
        hold_nanos: int,
        held_input_tokens: int,
        token_estimator: TokensPerByteEstimator,
    ) -> None:
        self._facts = facts
        self._hold_nanos = hold_nanos
        self._held_input_tokens = held_input_tokens
        self._token_estimator = token_estimator

    def bill_whole(self, reading: UsageReading) -> Bill:
        """Return what a whole reply is billed for: what the provider reported, as far as that can be true."""
        if reading.state is not UsageState.FINAL or says_too_little(reading):
            return self.bill_delivered(reading, ESTIMATED)
        possible, problem = bound_usage(reading.usage, self._facts)
        return Bill(self._with_images(possible), BOUNDED if problem else PROVIDER, problem)

    def bill_delivered(self, reading: UsageReading, source: str) -> Bill:
        """Return what a reply that is not whole is billed for: what was delivered, within the hold."""
        return Bill(self._with_images(self.estimate(reading)), source)

    def estimate(self, reading: UsageReading) -> Usage:
        """Return the input as reported, or else estimated, and the output by what was delivered; within the hold.

        No prompt is empty: zero input tokens are an upstream's way to say nothing.
        """
        facts = self._facts
        said = reading.has_input and reading.usage.prompt_tokens > 0
        searches = min(reading.usage.web_searches, facts.web_searches)
        usage = reading.usage if said else Usage(input_tokens=self._estimated_input())
        usage = usage._replace(web_searches=searches)
        output = self._token_estimator.tokens(facts.organization_id, facts.catalog_model.id, reading.delivered_bytes)
        if reading.has_output:
            output = max(output, reading.usage.output_tokens)
        output = min(output, facts.max_tokens)
        if self._cost(usage._replace(output_tokens=0)) > self._hold_nanos:
            # More than the body can hold was reported.
            usage = Usage(input_tokens=self._estimated_input(), web_searches=searches)
        usage = usage._replace(output_tokens=output)
        if self._cost(usage) > self._hold_nanos:
            usage = usage._replace(output_tokens=self._output_within_hold(usage))
        return usage

    def usage_event(self, usage: Usage, source: str, attempts: AttemptLog) -> UsageEvent:
        """Return the event of a request that used this; whoever knows when it was admitted and ended adds that."""
        event = _undated_event(self._facts, self._hold_nanos, usage, source)
        costs = [self._attempt_cost(attempt, usage, is_last=attempt is attempts.last) for attempt in attempts]
        event.cost_nanos = self._cost(usage)
        event.upstream = attempts.last.upstream if attempts.last else ""
        event.upstream_cost_nanos = sum(costs)
        event.attempts = [
            attempt.as_json(upstream_cost_nanos=cost) for attempt, cost in zip(attempts, costs, strict=True)
        ]
        return event

    def failed_event(self, error_code: str, attempts: AttemptLog) -> UsageEvent:
        """Return the event of a request that no upstream served: it costs the organization nothing."""
        event = self.usage_event(Usage(), PROVIDER, attempts)
        event.outcome, event.cost_nanos, event.error_code = FAILED, 0, error_code
        return event

    def _with_images(self, usage: Usage) -> Usage:
        facts = self._facts
        return usage._replace(images=facts.images) if facts.images and facts.price.has_price(IMAGE) else usage

    def _estimated_input(self) -> int:
        """The hold's input tokens are a bound, at two bytes a token; text is nearer to four."""
        return min(self._held_input_tokens, typical_input_tokens(self._facts, self._token_estimator))

    def _output_within_hold(self, usage: Usage) -> int:
        """Return the most output tokens that the hold covers beside the input of `usage`; 0 when it covers none."""
        low, high = 0, usage.output_tokens
        while low < high:
            middle = (low + high + 1) // 2
            if self._cost(usage._replace(output_tokens=middle)) <= self._hold_nanos:
                low = middle
            else:
                high = middle - 1
        return low

    def _cost(self, usage: Usage) -> int:
        facts = self._facts
        try:
            return cost_nanos(usage, facts.price, facts.factor_ppm)
        except MissingPriceError as error:
            # Priced tools are refused at the door where they have no price; an upstream that uses one unasked pays.
            logger.error("Request %s: %s; it is not charged.", facts.request_id, error)
            return cost_nanos(usage._replace(web_searches=0, images=0), facts.price, facts.factor_ppm)

    def _attempt_cost(self, attempt: Attempt, usage: Usage, *, is_last: bool) -> int:
        if attempt.was_given_up:
            usage = Usage(input_tokens=self._estimated_input())
        elif not (is_last and attempt.has_replied):
            return 0
        return upstream_cost_nanos(self._facts, attempt.upstream, usage)


def typical_input_tokens(facts: RequestFacts, token_estimator: TokensPerByteEstimator) -> int:
    """Return how many input tokens the request probably has; its images count too."""
    return token_estimator.input_tokens(facts.body_bytes, facts.images, facts.catalog_model.max_image_tokens)


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
        usage = usage._replace(output_tokens=bounds.held_output_tokens)
    if usage.web_searches > facts.web_searches:
        problems.append(f"{usage.web_searches} searches reported, {facts.web_searches} were asked for")
        usage = usage._replace(web_searches=facts.web_searches)
    return usage, "; ".join(problems)


def upstream_cost_nanos(facts: RequestFacts, upstream: str, usage: Usage) -> int:
    """Return what the provider charges us for `usage`, in nano-dollars; 0 where its price is not known."""
    price = facts.catalog_model.upstream_price_at(upstream, facts.received_at)
    if price is None:
        return 0
    try:
        return cost_nanos(usage, price)
    except MissingPriceError:
        return cost_nanos(usage._replace(web_searches=0, images=0), price)


def orphan_event(facts: RequestFacts, hold_nanos: int, estimated_input_tokens: int) -> bytes:
    """Return the event that stands for a request whose gateway died before its first checkpoint: it costs nothing.

    What the provider may charge us for the input is its upstream cost, and goes to orphan loss.
    """
    upstream = facts.catalog_model.routes[0].upstream_name
    cost = upstream_cost_nanos(facts, upstream, Usage(input_tokens=estimated_input_tokens))
    said = _known_fields(facts, hold_nanos)
    return encode_fields({**said, "usage_source": ORPHAN, "upstream": upstream, "upstream_cost_nanos": cost})


def _undated_event(facts: RequestFacts, hold_nanos: int, usage: Usage, source: str) -> UsageEvent:
    """Return an event without its costs: admitted, as far as is known here, when it was received."""
    event = UsageEvent(**_known_fields(facts, hold_nanos), usage_source=source)
    event.set_counts(usage)
    return event


def _known_fields(facts: RequestFacts, hold_nanos: int) -> dict[str, Any]:
    """Return the fields of an event that are known before its request is served."""
    return {
        "request_id": facts.request_id,
        "organization_id": facts.organization_id,
        "key_id": facts.key_id,
        "language_model_id": facts.catalog_model.language_model_id,
        "model_id": facts.catalog_model.id,
        "price_version_id": facts.price.price_version_id,
        "factor_ppm": facts.factor_ppm,
        "hold_nanos": hold_nanos,
        "admitted_at_ms": int(facts.received_at.timestamp() * 1000),
        "is_streamed": facts.is_streamed,
        "end_user": facts.end_user,
        "tag": facts.tag,
        "session": facts.session,
        "client": facts.client,
    }
