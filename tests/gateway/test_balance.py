"""What an organization and a key may spend: the balance to the nano-dollar, the credit limit, budgets of both."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.keys import create_key
from accounts.organizations import change_organization
from billing.admission.feed import publish_pending_changes
from billing.admission.worker import read_figures
from billing.credit_lots import spendable_credit
from billing.models import CreditLot
from billing.money import NANOS_PER_USD, format_usd, parse_usd
from billing.top_ups import grant_credit
from tests.gateway.checks import assert_error, assert_refused, wait_until_released
from tests.gateway.wire import post_at_once
from tests.support.world import Caller, World

FITS = re.compile(r"max_tokens of at most (\d+) would fit")
AVAILABLE = re.compile(r"available balance is \$([\d.]+)")
MAY_COST = re.compile(r"may cost up to \$([\d.]+)")
LEFT = re.compile(r"has \$([\d.]+) of \$([\d.]+) left")
AGAIN = re.compile(r"begins anew at (\S+)\.")
TINY = "[[sandbox: tokens=1]]"


def balance_nanos(caller: Caller) -> int:
    [(credit, _)] = spendable_credit([caller.organization.pk]).values()
    return credit


def add_credit(caller: Caller, usd: str, key: str) -> None:
    grant_credit(
        caller.organization,
        amount_nanos=parse_usd(usd),
        kind=CreditLot.Kind.PAID,
        reason="for a test",
        actor="test",
        idempotency_key=f"test:{caller.organization.name}:{key}",
    )
    publish_pending_changes()


def test_no_balance(world: World) -> None:
    poor = world.caller(credit_usd="0")
    message = assert_refused(world, poor, world.post(poor), 402, "insufficient_balance")
    assert "available balance is $0.00" in message
    assert "no max_tokens would fit" in message


def test_the_max_tokens_that_fits_is_exact(world: World) -> None:
    poor = world.caller(credit_usd="0.05")
    response = world.post(poor, TINY, max_tokens=100_000)
    message = assert_refused(world, poor, response, 402, "insufficient_balance")
    [available] = AVAILABLE.findall(message)
    assert parse_usd(available) == parse_usd("0.05")
    # As many digits as before, so that the body, and with it the estimate of its input, keeps its size.
    [fits] = FITS.findall(message)
    padded_text = TINY + " " * (len("100000") - len(fits))
    one_more = world.post(poor, padded_text, max_tokens=int(fits) + 1)
    message = assert_refused(world, poor, one_more, 402, "insufficient_balance")
    assert FITS.findall(message) == [fits]
    [may_cost] = MAY_COST.findall(message)
    assert parse_usd(may_cost) > parse_usd("0.05")
    assert world.post(poor, padded_text, max_tokens=int(fits)).status_code == 200


def test_the_largest_fitting_request_may_be_streamed_too(world: World) -> None:
    poor = world.caller(credit_usd="0.01")
    message = assert_error(world.post(poor, TINY, max_tokens=100_000, stream=True), 402, "insufficient_balance")
    [fits] = FITS.findall(message)
    assert world.post(poor, TINY, max_tokens=int(fits), stream=True).status_code == 200


def test_a_refusal_costs_nothing_and_holds_nothing(world: World) -> None:
    poor = world.caller(credit_usd="0.001")
    for _ in range(5):
        assert_refused(world, poor, world.post(poor), 402, "insufficient_balance")
    figures = read_figures(poor.organization.pk)
    assert figures is not None
    assert figures.available_nanos == parse_usd("0.001") == balance_nanos(poor)
    assert world.records(poor) == []


def test_credit_added_is_spendable_at_once(world: World) -> None:
    poor = world.caller(credit_usd="0")
    assert_error(world.post(poor), 402, "insufficient_balance")
    add_credit(poor, "1", "later")
    assert world.post(poor).status_code == 200


def test_a_credit_limit_lets_the_balance_go_below_zero(world: World) -> None:
    postpaid = world.caller(credit_usd="0", credit_limit_nanos=parse_usd("1"))
    response = world.post(postpaid)
    assert response.status_code == 200
    cost = world.record(response).cost_nanos
    figures = wait_until_released(world, postpaid)
    assert figures.credit_nanos == -cost
    assert figures.available_nanos == parse_usd("1") - cost
    change_organization(postpaid.organization, fields={"credit_limit_nanos": 0})
    publish_pending_changes()
    message = assert_refused(world, postpaid, world.post(postpaid), 402, "insufficient_balance")
    assert "available balance is $0.00" in message


def test_requests_at_once_never_oversell(world: World) -> None:
    """Twenty requests of which only some fit: what is admitted never holds more than there is."""
    poor = world.caller(credit_usd="0.1")
    responses = post_at_once(world.base_url, [(poor, "[[sandbox: delay=1000; tokens=1]]")] * 20)
    served = [response for response in responses if response.status_code == 200]
    refused = [response for response in responses if response.status_code != 200]
    holds = [world.record(response).hold_nanos for response in served]
    # As many as fit at once, and not one more.
    assert len(served) == parse_usd("0.1") // holds[0]
    assert sum(holds) <= parse_usd("0.1")
    assert refused
    for response in refused:
        assert_error(response, 402, "insufficient_balance")
    assert wait_until_released(world, poor).credit_nanos == parse_usd("0.1") - sum(
        record.cost_nanos for record in world.records(poor)
    )


# --- budgets ---------------------------------------------------------------------------------------------------------


def next_period(period: str) -> datetime:
    """Return when the running UTC day, week (from Monday) or month ends."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "daily":
        return midnight + timedelta(days=1)
    if period == "weekly":
        return midnight + timedelta(days=7 - midnight.weekday())
    return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)


def limited(world: World, scope: str, fields: dict[str, Any]) -> Caller:
    return world.caller(key=fields) if scope == "key" else world.caller(**fields)


@pytest.mark.parametrize("period", ["daily", "weekly", "monthly"])
@pytest.mark.parametrize("scope", ["key", "organization"])
def test_a_budget(world: World, scope: str, period: str) -> None:
    """A request is admitted while its whole hold fits; what it really cost is what counts afterwards."""
    budget = NANOS_PER_USD // 50
    caller = limited(world, scope, {f"{period}_budget_nanos": budget})
    first = world.post(caller, TINY)
    assert first.status_code == 200
    spent = world.record(first).cost_nanos
    wait_until_released(world, caller)
    response = world.post(caller, TINY, max_tokens=100_000)
    message = assert_refused(world, caller, response, 402, f"{scope}_{period}_budget_exceeded")
    [(left, whole)] = LEFT.findall(message)
    assert (left, whole) == (format_usd(budget - spent), format_usd(budget))
    [again] = AGAIN.findall(message)
    assert abs(datetime.strptime(again, "%Y-%m-%dT%H:%M:%S%z") - next_period(period)) <= timedelta(seconds=1)
    assert "retry-after" not in response.headers
    assert world.post(caller, TINY).status_code == 200


def test_the_budget_of_one_key_is_not_that_of_another(world: World) -> None:
    caller = world.caller(key={"daily_budget_nanos": 1})
    assert_error(world.post(caller), 402, "key_daily_budget_exceeded")
    other, secret = create_key(caller.organization, name="other", created_by=None)
    publish_pending_changes()
    assert world.post(Caller(caller.organization, other, secret)).status_code == 200


def test_the_budget_of_the_organization_is_that_of_all_its_keys(world: World) -> None:
    caller = world.caller(daily_budget_nanos=NANOS_PER_USD // 50)
    other_key, secret = create_key(caller.organization, name="other", created_by=None)
    publish_pending_changes()
    other = Caller(caller.organization, other_key, secret)
    big = world.post(other, "[[sandbox: tokens=900]]")
    assert big.status_code == 200
    spent = world.record(big).cost_nanos
    wait_until_released(world, caller)
    message = assert_error(world.post(caller), 402, "organization_daily_budget_exceeded")
    assert LEFT.findall(message)[0][0] == format_usd(NANOS_PER_USD // 50 - spent)
