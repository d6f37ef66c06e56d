"""What an organization and a key may spend: the balance to the nano-dollar, the credit limit, budgets of both."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accounts.keys import create_key
from accounts.organizations import change_organization
from billing.admission.blocking import read_admission_state
from billing.admission.outbox import publish_pending_changes
from billing.credit.lots import spendable_credit
from billing.credit.top_ups import grant_credit
from billing.models import CreditLot
from billing.money import NANOS_PER_USD, format_usd, parse_usd
from tests.gateway.checks import assert_error, assert_refused, wait_until_released
from tests.gateway.wire import post_at_once
from tests.support.live_stack import LiveStack, Tenant

FITS = re.compile(r"max_tokens of at most (\d+) would fit")
AVAILABLE = re.compile(r"available balance is \$([\d.]+)")
MAY_COST = re.compile(r"may cost up to \$([\d.]+)")
LEFT = re.compile(r"has \$([\d.]+) of \$([\d.]+) left")
AGAIN = re.compile(r"resets at (\S+)\.")
TINY = "[[sandbox: tokens=1]]"


def balance_nanos(tenant: Tenant) -> int:
    [(credit, _)] = spendable_credit([tenant.organization.pk]).values()
    return credit


def add_credit(tenant: Tenant, usd: str, key: str) -> None:
    grant_credit(
        tenant.organization,
        amount_nanos=parse_usd(usd),
        kind=CreditLot.Kind.PAID,
        reason="for a test",
        actor="test",
        idempotency_key=f"test:{tenant.organization.name}:{key}",
    )
    publish_pending_changes()


def test_no_balance(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0")
    message = assert_refused(stack, poor, stack.post(poor), 402, "insufficient_balance")
    assert "available balance is $0.00" in message
    assert "no max_tokens would fit" in message


def test_the_max_tokens_that_fits_is_exact(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0.05")
    response = stack.post(poor, TINY, max_tokens=100_000)
    message = assert_refused(stack, poor, response, 402, "insufficient_balance")
    [available] = AVAILABLE.findall(message)
    assert parse_usd(available) == parse_usd("0.05")
    # As many digits as before, so that the body, and with it the estimate of its input, keeps its size.
    [fits] = FITS.findall(message)
    padded_text = TINY + " " * (len("100000") - len(fits))
    one_more = stack.post(poor, padded_text, max_tokens=int(fits) + 1)
    message = assert_refused(stack, poor, one_more, 402, "insufficient_balance")
    assert FITS.findall(message) == [fits]
    [may_cost] = MAY_COST.findall(message)
    assert parse_usd(may_cost) > parse_usd("0.05")
    assert stack.post(poor, padded_text, max_tokens=int(fits)).status_code == 200


def test_the_largest_fitting_request_may_be_streamed_too(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0.01")
    message = assert_error(stack.post(poor, TINY, max_tokens=100_000, stream=True), 402, "insufficient_balance")
    [fits] = FITS.findall(message)
    assert stack.post(poor, TINY, max_tokens=int(fits), stream=True).status_code == 200


def test_a_refusal_costs_nothing_and_holds_nothing(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0.001")
    for _ in range(5):
        assert_refused(stack, poor, stack.post(poor), 402, "insufficient_balance")
    state = read_admission_state(poor.organization.pk)
    assert state is not None
    assert state.available_nanos == parse_usd("0.001") == balance_nanos(poor)
    assert stack.records(poor) == []


def test_credit_added_is_spendable_at_once(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0")
    assert_error(stack.post(poor), 402, "insufficient_balance")
    add_credit(poor, "1", "later")
    assert stack.post(poor).status_code == 200


def test_a_credit_limit_lets_the_balance_go_below_zero(stack: LiveStack) -> None:
    postpaid = stack.make_tenant(credit_usd="0", credit_limit_nanos=parse_usd("1"))
    response = stack.post(postpaid)
    assert response.status_code == 200
    cost = stack.record(response).cost_nanos
    state = wait_until_released(stack, postpaid)
    assert state.credit_nanos == -cost
    assert state.available_nanos == parse_usd("1") - cost
    change_organization(postpaid.organization, fields={"credit_limit_nanos": 0})
    publish_pending_changes()
    message = assert_refused(stack, postpaid, stack.post(postpaid), 402, "insufficient_balance")
    assert "available balance is $0.00" in message


def test_requests_at_once_never_oversell(stack: LiveStack) -> None:
    """Twenty requests of which only some fit: what is admitted never holds more than there is."""
    poor = stack.make_tenant(credit_usd="0.1")
    responses = post_at_once(stack.base_url, [(poor, "[[sandbox: delay=1000; tokens=1]]")] * 20)
    served = [response for response in responses if response.status_code == 200]
    refused = [response for response in responses if response.status_code != 200]
    holds = [stack.record(response).hold_nanos for response in served]
    # As many as fit at once, and not one more.
    assert len(served) == parse_usd("0.1") // holds[0]
    assert sum(holds) <= parse_usd("0.1")
    assert refused
    for response in refused:
        assert_error(response, 402, "insufficient_balance")
    assert wait_until_released(stack, poor).credit_nanos == parse_usd("0.1") - sum(
        record.cost_nanos for record in stack.records(poor)
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


def limited(stack: LiveStack, scope: str, fields: dict[str, Any]) -> Tenant:
    return stack.make_tenant(key=fields) if scope == "key" else stack.make_tenant(**fields)


@pytest.mark.parametrize("period", ["daily", "weekly", "monthly"])
@pytest.mark.parametrize("scope", ["key", "organization"])
def test_a_budget(stack: LiveStack, scope: str, period: str) -> None:
    """A request is admitted while its whole hold fits; what it really cost is what counts afterwards."""
    budget = NANOS_PER_USD // 50
    tenant = limited(stack, scope, {f"{period}_budget_nanos": budget})
    first = stack.post(tenant, TINY)
    assert first.status_code == 200
    spent = stack.record(first).cost_nanos
    wait_until_released(stack, tenant)
    response = stack.post(tenant, TINY, max_tokens=100_000)
    message = assert_refused(stack, tenant, response, 402, f"{scope}_{period}_budget_exceeded")
    [(left, whole)] = LEFT.findall(message)
    assert (left, whole) == (format_usd(budget - spent), format_usd(budget))
    [again] = AGAIN.findall(message)
    assert abs(datetime.strptime(again, "%Y-%m-%dT%H:%M:%S%z") - next_period(period)) <= timedelta(seconds=1)
    assert "retry-after" not in response.headers
    assert stack.post(tenant, TINY).status_code == 200


def test_the_budget_of_one_key_is_not_that_of_another(stack: LiveStack) -> None:
    tenant = stack.make_tenant(key={"daily_budget_nanos": 1})
    assert_error(stack.post(tenant), 402, "key_daily_budget_exceeded")
    other, secret = create_key(tenant.organization, name="other", created_by=None)
    publish_pending_changes()
    assert stack.post(Tenant(tenant.organization, other, secret)).status_code == 200


def test_the_budget_of_the_organization_is_that_of_all_its_keys(stack: LiveStack) -> None:
    tenant = stack.make_tenant(daily_budget_nanos=NANOS_PER_USD // 50)
    other_key, secret = create_key(tenant.organization, name="other", created_by=None)
    publish_pending_changes()
    other = Tenant(tenant.organization, other_key, secret)
    big = stack.post(other, "[[sandbox: tokens=900]]")
    assert big.status_code == 200
    spent = stack.record(big).cost_nanos
    wait_until_released(stack, tenant)
    message = assert_error(stack.post(tenant), 402, "organization_daily_budget_exceeded")
    assert LEFT.findall(message)[0][0] == format_usd(NANOS_PER_USD // 50 - spent)
