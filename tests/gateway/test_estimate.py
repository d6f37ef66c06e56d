"""POST /api/v1/estimate says what the request would hold and cost, and leaves no trace."""

import re
from decimal import Decimal
from typing import Any

import httpx
import pytest

from accounts.keys import create_key
from billing.models import FailedRequest, RefusedRequest
from tests.gateway.checks import assert_error, assert_nothing_is_held
from tests.support.live_stack import HTTP, LiveStack, Tenant, body

pytestmark = pytest.mark.keeps_redis


def ask(stack: LiveStack, tenant: Tenant, **fields: Any) -> httpx.Response:
    return HTTP.post(f"{stack.base_url}/api/v1/estimate", headers=tenant.headers, json=body(**fields))


def test_it_says_what_the_request_would_hold(stack: LiveStack) -> None:
    """The figure is that of the refusal which a balance just below it gets, to the nano-dollar."""
    tenant = stack.make_tenant(credit_usd="0.001")
    answer = ask(stack, tenant, max_tokens=8000)
    told = answer.json()["data"]
    assert (told["available"], told["is_covered"], told["currency"]) == ("0.001", False, "USD")
    described = HTTP.get(f"{stack.base_url}/api/schema/?format=json").json()["paths"]["/api/v1/estimate"]["post"]
    schema = described["responses"]["200"]["content"]["application/json"]["schema"]["properties"]["data"]
    assert set(told) == set(schema["properties"]) == set(schema["required"])
    message = assert_error(stack.post(tenant, max_tokens=8000), 402, "insufficient_balance")
    assert f"up to ${told['hold']} with max_tokens of 8000" in message
    fits = re.search(r"max_tokens of at most (\d+)", message)
    assert fits is not None and told["affordable_max_tokens"] == int(fits[1])
    assert stack.post(tenant, max_tokens=told["affordable_max_tokens"]).status_code == 200


def test_what_it_costs_lies_between_the_input_and_all_that_may_be_written(stack: LiveStack, alice: Tenant) -> None:
    told = ask(stack, alice, max_tokens=4000).json()["data"]
    assert told["is_covered"] and told["max_tokens"] == 4000
    assert 0 < told["estimated_input_tokens"] <= told["max_input_tokens"]
    answered = stack.post(alice, max_tokens=4000)
    cost = Decimal(stack.record(answered).cost_nanos).scaleb(-9)
    assert 0 < Decimal(told["cost_of_input"]) < cost < Decimal(told["cost_with_max_tokens"])
    assert Decimal(told["cost_with_max_tokens"]) <= Decimal(told["hold"])


def test_it_leaves_no_trace(stack: LiveStack, alice: Tenant) -> None:
    before = FailedRequest.objects.count(), RefusedRequest.objects.count()
    assert ask(stack, alice).status_code == 200
    assert_error(ask(stack, alice, model="acme/nothing"), 404, "model_not_found")
    assert_error(ask(stack, alice, max_tokens=-1), 400, "invalid_request")
    stack.wait_until_quiet()
    assert stack.records(alice) == []
    assert (FailedRequest.objects.count(), RefusedRequest.objects.count()) == before
    assert_nothing_is_held(stack, alice)


def test_it_is_for_keys_that_could_ask(stack: LiveStack, alice: Tenant) -> None:
    _, management = create_key(alice.organization, name="m", created_by=None, is_management=True)
    for headers, code in (({}, "missing_api_key"), ({"x-api-key": management}, "invalid_api_key")):
        answer = HTTP.post(f"{stack.base_url}/api/v1/estimate", headers=headers, json=body())
        assert_error(answer, 401, code)
    limited = stack.make_tenant(key={"allowed_models": ["anthropic/claude-haiku-4.5"]})
    assert_error(ask(stack, limited), 402, "model_not_allowed")
    assert_error(stack.get(alice, "/api/v1/estimate"), 405, "method_not_allowed")
