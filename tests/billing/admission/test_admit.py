"""ADMIT: what it lets in, what it refuses and says of it, and that a refusal changes nothing."""

import asyncio
import time

import pytest

from billing.admission.calls.admit import Admitted, Refused
from billing.admission.calls.not_ready import NotReady
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.redis_keys import SHARDS
from tests.billing.admission.conftest import KEY, ORGANIZATION, USD, Gate, today


async def test_admission_holds_the_amount(gate: Gate) -> None:
    answer = await gate.admit(gate.hold(3 * USD))
    assert isinstance(answer, Admitted)
    assert answer.available_nanos == 7 * USD
    assert answer.day == today()
    assert gate.org("held", "open", f"held:{today()}") == [3 * USD, 1, 3 * USD]
    assert gate.key("open", f"held:{today()}") == [1, 3 * USD]


async def test_the_same_request_again_holds_nothing_more(gate: Gate) -> None:
    hold = gate.hold(3 * USD)
    await gate.admit(hold)
    answer = await gate.admit(hold)
    assert isinstance(answer, Admitted)
    assert gate.org("held", "open") == [3 * USD, 1]


async def test_what_cannot_be_paid_is_refused_without_a_trace(gate: Gate) -> None:
    await gate.admit(gate.hold(8 * USD))
    before = gate.everything()
    answer = await gate.admit(gate.hold(3 * USD))
    assert isinstance(answer, Refused)
    assert (answer.code, answer.current, answer.limit) == ("insufficient_balance", 2 * USD, 3 * USD)
    assert gate.everything() == before


async def test_the_last_nano_dollar_may_be_held_but_not_one_more(gate: Gate) -> None:
    assert isinstance(await gate.admit(gate.hold(10 * USD)), Admitted)
    assert isinstance(await gate.admit(gate.hold(1)), Refused)


async def test_concurrent_requests_never_hold_more_than_there_is(gate: Gate) -> None:
    answers = await asyncio.gather(*(gate.admit(gate.hold(USD)) for _ in range(200)))
    assert sum(isinstance(answer, Admitted) for answer in answers) == 10
    assert gate.org("held") == [10 * USD]


async def test_the_credit_limit_can_be_spent_too(gate: Gate) -> None:
    await gate.publish_org(credit=0, limit=2 * USD)
    assert isinstance(await gate.admit(gate.hold(2 * USD)), Admitted)
    assert isinstance(await gate.admit(gate.hold(1)), Refused)


async def test_amounts_beyond_what_lua_counts_exactly_stay_exact(gate: Gate) -> None:
    credit = 2**60 + 1
    await gate.publish_org(credit=credit)
    await gate.admit(gate.hold(2**59 + 1))
    hold = gate.hold(3)
    await gate.admit(hold)
    assert gate.org("held") == [2**59 + 4]
    await gate.close_hold(hold, 2)
    assert gate.org("held", "unsettled") == [2**59 + 1, 2]


async def test_requests_per_minute_of_the_key(gate: Gate) -> None:
    await gate.publish_key(requests_per_minute=3)
    answers = [await gate.admit(gate.hold(1)) for _ in range(4)]
    assert [isinstance(answer, Admitted) for answer in answers] == [True, True, True, False]
    refused = answers[3]
    assert isinstance(refused, Refused)
    assert refused.code == "rate_limited_requests"
    assert refused.limit == 3
    assert 0 < refused.reset_us <= 20_000_000
    assert (refused.rates.requests.limit, refused.rates.requests.remaining) == (3, 0)


async def test_the_tighter_of_key_and_organization_is_reported(gate: Gate) -> None:
    await gate.publish_key(requests_per_minute=100)
    await gate.publish_org(requests_per_minute=5)
    answer = await gate.admit(gate.hold(1))
    assert isinstance(answer, Admitted)
    assert (answer.rates.requests.limit, answer.rates.requests.remaining) == (5, 4)
    assert (answer.rates.input_tokens.limit, answer.rates.input_tokens.remaining) == (-1, -1)


async def test_rates_admit_at_most_burst_plus_rate_times_time(gate: Gate) -> None:
    await gate.publish_key(requests_per_minute=600)
    started = time.monotonic()
    admitted = 0
    while time.monotonic() - started < 1.5:
        answers = await asyncio.gather(*(gate.admit(gate.hold(1)) for _ in range(100)))
        admitted += sum(isinstance(answer, Admitted) for answer in answers)
    assert 600 <= admitted <= 600 + 10 * (time.monotonic() - started)


async def test_output_tokens_are_reserved_and_the_unused_ones_come_back(gate: Gate) -> None:
    await gate.publish_key(output_tokens_per_minute=1000)
    hold = gate.hold(1, output_tokens=900)
    await gate.admit(hold)
    refused = await gate.admit(gate.hold(1, output_tokens=200))
    assert isinstance(refused, Refused)
    assert refused.code == "rate_limited_output_tokens"
    await gate.close_hold(hold, 1, output_tokens=100)
    answer = await gate.admit(gate.hold(1, output_tokens=800))
    assert isinstance(answer, Admitted)


async def test_used_input_tokens_beyond_the_reservation_are_taken_too(gate: Gate) -> None:
    await gate.publish_org(input_tokens_per_minute=1000)
    hold = gate.hold(1, input_tokens=100)
    await gate.admit(hold)
    await gate.close_hold(hold, 1, input_tokens=1000)
    assert isinstance(await gate.admit(gate.hold(1, input_tokens=50)), Refused)


async def test_a_rate_that_is_set_later_gets_nothing_back_that_it_never_gave(gate: Gate) -> None:
    hold = gate.hold(1, output_tokens=900)
    await gate.admit(hold)
    await gate.publish_key(output_tokens_per_minute=1000)
    assert isinstance(await gate.admit(gate.hold(1, output_tokens=1000)), Admitted)
    await gate.close_hold(hold, 1, output_tokens=100)
    assert isinstance(await gate.admit(gate.hold(1, output_tokens=700)), Refused)


async def test_a_request_larger_than_the_rate_needs_the_whole_of_it(gate: Gate) -> None:
    await gate.publish_key(output_tokens_per_minute=1000)
    assert isinstance(await gate.admit(gate.hold(1, output_tokens=5000)), Admitted)
    assert isinstance(await gate.admit(gate.hold(1, output_tokens=100)), Refused)


async def test_a_clock_that_jumped_back_locks_nobody_out(gate: Gate) -> None:
    await gate.publish_key(requests_per_minute=2)
    in_an_hour = str((int(time.time()) + 3600) * 1_000_000)
    gate.server.set(SHARDS[ORGANIZATION].rate("key", KEY, "requests"), in_an_hour)
    assert isinstance(await gate.admit(gate.hold(1)), Admitted)
    assert isinstance(await gate.admit(gate.hold(1)), Admitted)
    assert isinstance(await gate.admit(gate.hold(1)), Refused)


async def test_concurrency_counts_open_holds(gate: Gate) -> None:
    await gate.publish_org(concurrent_requests=2)
    holds = [gate.hold(1) for _ in range(3)]
    answers = [await gate.admit(hold) for hold in holds]
    assert isinstance(answers[2], Refused)
    assert answers[2].code == "rate_limited_concurrency"
    await gate.close_hold(holds[0], 1)
    assert isinstance(await gate.admit(gate.hold(1)), Admitted)


async def test_daily_budget_counts_posted_unsettled_and_held(gate: Gate) -> None:
    await gate.publish_key(daily_budget=10, posted={today(): 4})
    settled = gate.hold(3)
    await gate.admit(settled)
    await gate.close_hold(settled, 2)
    assert isinstance(await gate.admit(gate.hold(3)), Admitted)
    refused = await gate.admit(gate.hold(2))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.current, refused.limit) == ("key_daily_budget_exceeded", 9, 10)
    assert 0 < refused.reset_us <= 86_400_000_000


async def test_monthly_budget_of_the_organization_reaches_back_to_the_first(gate: Gate) -> None:
    first = today() - time.gmtime().tm_mday + 1
    await gate.publish_org(monthly_budget=10, posted={first: 6, first - 1: 1000})
    assert isinstance(await gate.admit(gate.hold(4)), Admitted)
    refused = await gate.admit(gate.hold(1))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.current) == ("organization_monthly_budget_exceeded", 10)


async def test_weekly_budget_begins_on_monday(gate: Gate) -> None:
    monday = today() - time.gmtime().tm_wday
    await gate.publish_org(weekly_budget=10, posted={monday: 7, monday - 1: 1000})
    refused = await gate.admit(gate.hold(4))
    assert isinstance(refused, Refused)
    assert (refused.code, refused.current) == ("organization_weekly_budget_exceeded", 7)
    assert isinstance(await gate.admit(gate.hold(3)), Admitted)


async def test_revoked_expired_and_foreign_keys_are_dead(gate: Gate) -> None:
    await gate.publish_key(status="revoked")
    assert (await gate.admit(gate.hold(1))).code == "key_revoked"  # type: ignore[attr-defined]
    await gate.publish_key(expires_at=int(time.time()) - 1)
    assert (await gate.admit(gate.hold(1))).code == "key_expired"  # type: ignore[attr-defined]
    await gate.publish_key(organization=ORGANIZATION + 64)
    assert (await gate.admit(gate.hold(1))).code == "key_revoked"  # type: ignore[attr-defined]


async def test_a_suspended_organization_is_refused(gate: Gate) -> None:
    await gate.publish_org(status="suspended")
    assert (await gate.admit(gate.hold(1))).code == "organization_suspended"  # type: ignore[attr-defined]


async def test_a_key_that_changed_since_the_gateway_read_it_is_stale(gate: Gate) -> None:
    answer = await gate.client.admit(gate.hold(1), key_config_version=gate.version - 1)
    assert answer == NotReady("STALE")


async def test_what_is_missing_is_loaded_never_read_as_nothing(gate: Gate) -> None:
    gate.server.delete(SHARDS[ORGANIZATION].key(KEY))
    assert await gate.admit(gate.hold(1)) == NotReady("LOAD key")
    gate.server.delete(SHARDS[ORGANIZATION].org(ORGANIZATION))
    assert await gate.admit(gate.hold(1)) == NotReady("LOAD org")


async def test_admission_stops_while_too_many_events_wait(gate: Gate) -> None:
    for _ in range(5):
        hold = gate.hold(1)
        await gate.admit(hold)
        await gate.close_hold(hold, 1)
    assert (await gate.admit(gate.hold(1))).code == "settlement_behind"  # type: ignore[attr-defined]


@pytest.mark.single_redis
async def test_under_memory_pressure_nothing_is_half_done(gate: Gate) -> None:
    hold = gate.hold(USD)
    await gate.admit(hold)
    used = int(gate.server.info("memory")["used_memory"])
    gate.server.config_set("maxmemory", used // 2)
    try:
        before = gate.everything()
        with pytest.raises(AdmissionUnavailableError, match="OOM"):
            await gate.admit(gate.hold(USD))
        assert gate.everything() == before
        assert await gate.close_hold(hold, USD) is not None
        assert gate.org("held", "unsettled", "open") == [0, USD, 0]
    finally:
        gate.server.config_set("maxmemory", 0)
