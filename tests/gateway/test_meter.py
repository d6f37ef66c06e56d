"""What a reading comes to: usage within the hold, its cost, and the event with what the attempts cost us."""

from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

from billing.catalog.snapshot import UsableRoute
from billing.pricing.cost import PriceTable, Usage, cost_nanos
from billing.usage_event import BOUNDED, ESTIMATED, FAILED, ORPHAN, PARTIAL, PROVIDER, USAGE_COUNTS, decode_event
from gateway.metering.attempts import BROKEN, SERVED, AttemptLog
from gateway.metering.meter import NOTHING_READ, Meter, orphan_event
from gateway.protocol.usage_reading import UsageReading, UsageState
from gateway.token_estimator import TokensPerByteEstimator
from tests.gateway.test_bound_usage import MODEL, PRICE, facts_of

UPSTREAM_PRICE = PriceTable(2, {"input": ((0, 1_000_000),), "output": ((0, 5_000_000),)})
ROUTE = UsableRoute(
    route_id=1,
    upstream_name="first",
    protocol="messages",
    base_url="",
    credential="",
    bills_when_cancelled=False,
    is_sandbox=False,
    profile={},
    upstream_model="large",
    position=1,
    weight=1,
)
ALWAYS = datetime(2020, 1, 1, tzinfo=UTC)
CATALOG_MODEL = replace(
    MODEL, routes=(ROUTE,), upstream_prices=MappingProxyType({"first": ((ALWAYS, UPSTREAM_PRICE),)})
)
FACTS = facts_of(held=1_000, most=2_000, max_tokens=100, searches=0)._replace(catalog_model=CATALOG_MODEL)
HOLD_NANOS = 10_000_000
WHOLE = UsageReading(
    state=UsageState.FINAL,
    usage=Usage(input_tokens=800, output_tokens=50),
    has_input=True,
    has_output=True,
    delivered_bytes=200,
    is_complete=True,
    stop_reason="end_turn",
    upstream_message_id="msg_1",
)


def meter(*, hold_nanos: int = HOLD_NANOS) -> Meter:
    return Meter(FACTS, hold_nanos=hold_nanos, held_input_tokens=1_000, token_estimator=TokensPerByteEstimator())


def test_a_whole_reply_is_billed_as_reported() -> None:
    assert meter().bill_whole(WHOLE) == (WHOLE.usage, PROVIDER, "")


def test_what_cannot_be_true_is_billed_as_what_is_possible_and_said() -> None:
    bill = meter().bill_whole(WHOLE._replace(usage=Usage(input_tokens=9_999, output_tokens=50)))
    assert (bill.usage, bill.source) == (Usage(input_tokens=1_000, output_tokens=50), BOUNDED)
    assert bill.problem == "9999 prompt tokens reported, 2000 are possible"


def test_silence_about_usage_is_estimated_from_the_body_and_what_was_delivered() -> None:
    silent = NOTHING_READ._replace(delivered_bytes=200)
    assert meter().bill_whole(silent) == (Usage(input_tokens=500, output_tokens=50), ESTIMATED, "")


def test_no_estimate_costs_more_than_the_hold() -> None:
    for hold_nanos in (0, 1, 1_500_000, 1_600_000, HOLD_NANOS):
        bill = meter(hold_nanos=hold_nanos).bill_delivered(NOTHING_READ._replace(delivered_bytes=10**6), PARTIAL)
        prompt = cost_nanos(Usage(input_tokens=500), PRICE)
        assert cost_nanos(bill.usage, PRICE) <= max(hold_nanos, prompt)
        assert bill.usage.output_tokens == min(100, max(0, (hold_nanos - prompt) // 15_000))


def test_an_event_has_the_counts_the_cost_and_what_each_attempt_cost_us() -> None:
    attempts = AttemptLog()
    attempts.begin("first").end("upstream_timeout")
    attempts.begin("first").end("upstream_unreachable")
    attempts.begin("first").end(SERVED)
    event = meter().usage_event(WHOLE.usage, PROVIDER, attempts)
    assert [getattr(event, name) for name in USAGE_COUNTS] == [800, 50, 0, 0, 0, 0, 0]
    assert event.cost_nanos == cost_nanos(WHOLE.usage, PRICE)
    # Who was given up may charge for the estimated prompt, who was never reached for nothing.
    costs = [500 * 1_000, 0, 800 * 1_000 + 50 * 5_000]
    assert [attempt["upstream_cost_nanos"] for attempt in event.attempts] == costs
    assert event.upstream_cost_nanos == sum(costs)
    assert event.upstream == "first"


def test_a_broken_stream_may_have_cost_us_what_it_delivered() -> None:
    attempts = AttemptLog()
    attempts.begin("first").end(SERVED)
    attempts.note_broken()
    event = meter().usage_event(WHOLE.usage, PARTIAL, attempts)
    assert [attempt["outcome"] for attempt in event.attempts] == [BROKEN]
    assert event.upstream_cost_nanos == 800 * 1_000 + 50 * 5_000


def test_a_failed_request_costs_nothing() -> None:
    event = meter().failed_event("no_route", AttemptLog())
    assert (event.outcome, event.cost_nanos, event.upstream_cost_nanos) == (FAILED, 0, 0)
    assert (event.error_code, event.upstream, event.attempts) == ("no_route", "", [])


def test_an_upstream_without_a_known_price_costs_zero() -> None:
    attempts = AttemptLog()
    attempts.begin("other").end(SERVED)
    assert meter().usage_event(WHOLE.usage, PROVIDER, attempts).upstream_cost_nanos == 0


def test_the_event_of_an_orphan_costs_the_organization_nothing_and_us_its_input() -> None:
    event = decode_event(orphan_event(FACTS, HOLD_NANOS, 500))
    assert (event.usage_source, event.cost_nanos, event.hold_nanos) == (ORPHAN, 0, HOLD_NANOS)
    assert (event.upstream, event.upstream_cost_nanos) == ("first", 500 * 1_000)
