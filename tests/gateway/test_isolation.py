"""Tenants cannot see, spend or slow down each other. By counts, not by times."""

import json

import pytest

from billing.admission.blocking import read_admission_state
from billing.models import UsageRecord
from billing.money import parse_usd
from billing.shards import SHARD_COUNT
from tests.gateway.checks import assert_error, wait_until_released
from tests.gateway.wire import post_at_once
from tests.support.live_stack import HTTP, LiveStack, Tenant

TINY = "[[sandbox: tokens=1]]"


@pytest.fixture
def bob(stack: LiveStack, alice: Tenant) -> Tenant:
    """Another tenant in Alice's very shard, whose keys in Redis lie beside hers."""
    return stack.make_tenant(id=alice.organization.pk + SHARD_COUNT * 1_000_000)


def test_a_key_spends_its_own_organizations_credit_only(stack: LiveStack, alice: Tenant, bob: Tenant) -> None:
    for _ in range(3):
        assert stack.post(alice).status_code == 200
    spent = sum(record.cost_nanos for record in wait_for_records(stack, alice, 3))
    assert wait_until_released(stack, alice).credit_nanos == parse_usd("10") - spent
    state = read_admission_state(bob.organization.pk)
    assert state is not None
    assert (state.credit_nanos, state.held_nanos, state.unsettled_nanos) == (parse_usd("10"), 0, 0)
    assert stack.records(bob) == []


def wait_for_records(stack: LiveStack, tenant: Tenant, count: int) -> list[UsageRecord]:
    stack.wait_until(lambda: len(stack.records(tenant)) == count, f"{count} requests are billed")
    return stack.records(tenant)


def test_no_balance_of_one_is_help_to_the_other(stack: LiveStack, bob: Tenant) -> None:
    poor = stack.make_tenant(credit_usd="0")
    for _ in range(3):
        assert_error(stack.post(poor), 402, "insufficient_balance")
        assert stack.post(bob, TINY).status_code == 200


def test_fields_of_a_request_name_no_other_payer(stack: LiveStack, alice: Tenant, bob: Tenant) -> None:
    """Whatever a body or a header says of organizations, the key alone decides who pays."""
    headers = {
        **alice.headers,
        "x-organization-id": str(bob.organization.pk),
        "anthropic-organization-id": str(bob.organization.pk),
        "x-crossmodel-request-id": "0" * 32,
        "request-id": "req_" + "0" * 32,
    }
    fields = {"model": "claude-sonnet-4-6", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}
    odd = {**fields, "organization_id": bob.organization.pk, "key_id": bob.key.pk, "request_id": "0" * 32}
    response = HTTP.post(stack.base_url + "/v1/messages", headers=headers, content=json.dumps(odd))
    record = stack.record(response)
    assert (record.organization_id, record.key_id) == (alice.organization.pk, alice.key.pk)
    assert record.request_id.int != 0
    assert stack.records(bob) == []


def test_the_api_shows_its_own_organization_only(stack: LiveStack, alice: Tenant, bob: Tenant) -> None:
    response = stack.post(alice)
    stack.record(response)
    wait_until_released(stack, alice)
    request_id = response.headers["request-id"]
    mine = stack.get(alice, f"/api/v1/generation?id={request_id}")
    assert mine.status_code == 200
    assert stack.get(bob, f"/api/v1/generation?id={request_id}").status_code == 404
    for path in ("/api/v1/credits", "/api/v1/key"):
        seen_by_alice, seen_by_bob = stack.get(alice, path), stack.get(bob, path)
        assert seen_by_alice.status_code == seen_by_bob.status_code == 200
        assert seen_by_alice.json() != seen_by_bob.json()
        assert alice.organization.name not in seen_by_bob.text
        assert alice.key.prefix not in seen_by_bob.text


def test_a_flood_of_one_tenant_stops_no_other(stack: LiveStack, bob: Tenant) -> None:
    """A hundred and fifty requests at once of a tenant that may make ten, and those of another between them."""
    loud = stack.make_tenant(key={"requests_per_minute": 10, "concurrent_requests": 3})
    calls = [(bob, TINY) if number % 10 == 0 else (loud, TINY) for number in range(150)]
    responses = post_at_once(stack.base_url, calls)
    of_bob = [response for (tenant, _), response in zip(calls, responses, strict=True) if tenant is bob]
    of_loud = [response for (tenant, _), response in zip(calls, responses, strict=True) if tenant is loud]
    assert [(response.status_code, response.json().get("error")) for response in of_bob] == [(200, None)] * 15
    served = [response for response in of_loud if response.status_code == 200]
    assert 1 <= len(served) <= 12
    for response in of_loud:
        if response.status_code != 200:
            assert response.status_code == 429
            assert response.json()["error"]["code"] in ("rate_limited_requests", "rate_limited_concurrency")
    assert len(wait_for_records(stack, bob, 15)) == 15
    assert len(wait_for_records(stack, loud, len(served))) == len(served)


def test_wrong_keys_by_the_hundred_stop_nobody(stack: LiveStack, alice: Tenant) -> None:
    stranger = Tenant(alice.organization, alice.key, "cm-" + "x" * 8 + "-" + "y" * 43)
    calls = [(alice if number % 10 == 0 else stranger, TINY) for number in range(100)]
    responses = post_at_once(stack.base_url, calls)
    for (tenant, _), response in zip(calls, responses, strict=True):
        if tenant is alice:
            assert response.status_code == 200
        else:
            assert_error(response, 401, "invalid_api_key")
