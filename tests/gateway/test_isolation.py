"""Tenants cannot see, spend or slow down each other. By counts, not by times."""

import json

import pytest

from billing.admission.worker import read_figures
from billing.models import UsageRecord
from billing.money import parse_usd
from billing.shards import SHARD_COUNT
from tests.gateway.checks import assert_error, wait_until_released
from tests.gateway.wire import post_at_once
from tests.support.world import HTTP, Caller, World

TINY = "[[sandbox: tokens=1]]"


@pytest.fixture
def bob(world: World, alice: Caller) -> Caller:
    """Another tenant in Alice's very shard, whose keys in Redis lie beside hers."""
    return world.caller(id=alice.organization.pk + SHARD_COUNT * 1_000_000)


def test_a_key_spends_its_own_organizations_credit_only(world: World, alice: Caller, bob: Caller) -> None:
    for _ in range(3):
        assert world.post(alice).status_code == 200
    spent = sum(record.cost_nanos for record in wait_for_records(world, alice, 3))
    assert wait_until_released(world, alice).credit_nanos == parse_usd("10") - spent
    figures = read_figures(bob.organization.pk)
    assert figures is not None
    assert (figures.credit_nanos, figures.held_nanos, figures.unsettled_nanos) == (parse_usd("10"), 0, 0)
    assert world.records(bob) == []


def wait_for_records(world: World, caller: Caller, count: int) -> list[UsageRecord]:
    world.wait_until(lambda: len(world.records(caller)) == count, f"{count} requests are billed")
    return world.records(caller)


def test_no_balance_of_one_is_help_to_the_other(world: World, bob: Caller) -> None:
    poor = world.caller(credit_usd="0")
    for _ in range(3):
        assert_error(world.post(poor), 402, "insufficient_balance")
        assert world.post(bob, TINY).status_code == 200


def test_fields_of_a_request_name_no_other_payer(world: World, alice: Caller, bob: Caller) -> None:
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
    response = HTTP.post(world.base_url + "/v1/messages", headers=headers, content=json.dumps(odd))
    record = world.record(response)
    assert (record.organization_id, record.key_id) == (alice.organization.pk, alice.key.pk)
    assert record.request_id.int != 0
    assert world.records(bob) == []


def test_the_api_shows_its_own_organization_only(world: World, alice: Caller, bob: Caller) -> None:
    response = world.post(alice)
    world.record(response)
    wait_until_released(world, alice)
    request_id = response.headers["request-id"]
    mine = world.get(alice, f"/api/v1/generation?id={request_id}")
    assert mine.status_code == 200
    assert world.get(bob, f"/api/v1/generation?id={request_id}").status_code == 404
    for path in ("/api/v1/credits", "/api/v1/key"):
        seen_by_alice, seen_by_bob = world.get(alice, path), world.get(bob, path)
        assert seen_by_alice.status_code == seen_by_bob.status_code == 200
        assert seen_by_alice.json() != seen_by_bob.json()
        assert alice.organization.name not in seen_by_bob.text
        assert alice.key.prefix not in seen_by_bob.text


def test_a_flood_of_one_tenant_stops_no_other(world: World, bob: Caller) -> None:
    """A hundred and fifty requests at once of a tenant that may make ten, and those of another between them."""
    loud = world.caller(key={"requests_per_minute": 10, "concurrent_requests": 3})
    calls = [(bob, TINY) if number % 10 == 0 else (loud, TINY) for number in range(150)]
    responses = post_at_once(world.base_url, calls)
    of_bob = [response for (caller, _), response in zip(calls, responses, strict=True) if caller is bob]
    of_loud = [response for (caller, _), response in zip(calls, responses, strict=True) if caller is loud]
    assert [(response.status_code, response.json().get("error")) for response in of_bob] == [(200, None)] * 15
    served = [response for response in of_loud if response.status_code == 200]
    assert 1 <= len(served) <= 12
    for response in of_loud:
        if response.status_code != 200:
            assert response.status_code == 429
            assert response.json()["error"]["code"] in ("rate_limited_requests", "rate_limited_concurrency")
    assert len(wait_for_records(world, bob, 15)) == 15
    assert len(wait_for_records(world, loud, len(served))) == len(served)


def test_wrong_keys_by_the_hundred_stop_nobody(world: World, alice: Caller) -> None:
    stranger = Caller(alice.organization, alice.key, "cm-" + "x" * 8 + "-" + "y" * 43)
    calls = [(alice if number % 10 == 0 else stranger, TINY) for number in range(100)]
    responses = post_at_once(world.base_url, calls)
    for (caller, _), response in zip(calls, responses, strict=True):
        if caller is alice:
            assert response.status_code == 200
        else:
            assert_error(response, 401, "invalid_api_key")
