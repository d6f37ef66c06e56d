"""Requests and tokens per minute, and requests at once: of a key and of an organization, by their own headers."""

import math
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from accounts.keys import change_key, create_key
from billing.admission.outbox import publish_pending_changes
from tests.gateway.checks import assert_error, assert_refused, wait_until_released
from tests.gateway.wire import post_at_once
from tests.support.live_stack import HTTP, LiveStack, Tenant, body

TINY = "[[sandbox: tokens=1]]"
SCOPES = ["key", "organization"]


def limited(stack: LiveStack, scope: str, **fields: Any) -> Tenant:
    return stack.make_tenant(key=fields) if scope == "key" else stack.make_tenant(**fields)


def rate_headers(response: httpx.Response, kind: str) -> tuple[int, int, datetime]:
    """Return limit, remaining and reset."""
    prefix = f"anthropic-ratelimit-{kind}-"
    reset = datetime.strptime(response.headers[prefix + "reset"], "%Y-%m-%dT%H:%M:%S%z")
    return int(response.headers[prefix + "limit"]), int(response.headers[prefix + "remaining"]), reset


@pytest.mark.parametrize("scope", SCOPES)
def test_requests_per_minute(stack: LiveStack, scope: str) -> None:
    tenant = limited(stack, scope, requests_per_minute=3)
    for left in (2, 1, 0):
        response = stack.post(tenant, TINY)
        assert response.status_code == 200
        limit, remaining, reset = rate_headers(response, "requests")
        assert (limit, remaining) == (3, left)
        assert 0 <= (reset - datetime.now(UTC)).total_seconds() + 1 <= 61
        assert "retry-after" not in response.headers
    response = stack.post(tenant, TINY)
    message = assert_error(response, 429, "rate_limited_requests")
    assert "3 requests per minute" in message
    assert 1 <= int(response.headers["retry-after"]) <= 20
    assert rate_headers(response, "requests")[:2] == (3, 0)
    assert "x-should-retry" not in response.headers
    wait_until_released(stack, tenant)
    assert_refused(stack, tenant, stack.post(tenant, TINY), 429, "rate_limited_requests")


def test_retry_after_is_long_enough(stack: LiveStack) -> None:
    """A client that waits exactly that long is admitted."""
    tenant = stack.make_tenant(key={"requests_per_minute": 60})
    responses = post_at_once(stack.base_url, [(tenant, TINY)] * 66)
    refused = [response for response in responses if response.status_code != 200]
    assert refused
    for response in refused:
        assert_error(response, 429, "rate_limited_requests")
        assert response.headers["retry-after"] == "1"
    time.sleep(1)
    assert stack.post(tenant, TINY).status_code == 200


@pytest.mark.parametrize("scope", SCOPES)
def test_input_tokens_per_minute(stack: LiveStack, scope: str) -> None:
    tenant = limited(stack, scope, input_tokens_per_minute=1_000)
    long = "x" * 1_500 + TINY
    first = stack.post(tenant, long)
    assert first.status_code == 200
    limit, remaining, _ = rate_headers(first, "input-tokens")
    assert limit == 1_000
    assert 0 < remaining < 500
    assert rate_headers(first, "tokens")[:2] == (limit, remaining)
    wait_until_released(stack, tenant)
    # The bound held two bytes for a token; what was really used is less, and the rest was given back.
    used = first.json()["usage"]["input_tokens"]
    response = stack.post(tenant, "x" * 4_000 + TINY)
    assert_refused(stack, tenant, response, 429, "rate_limited_input_tokens")
    assert int(response.headers["retry-after"]) <= math.ceil(used * 60 / 1_000)
    assert stack.post(tenant, TINY).status_code == 200


@pytest.mark.parametrize("scope", SCOPES)
def test_output_tokens_per_minute_are_reserved_and_given_back(stack: LiveStack, scope: str) -> None:
    tenant = limited(stack, scope, output_tokens_per_minute=2_000)
    for _ in range(4):  # Each reserves 1,024 of the 2,000, and uses one.
        assert stack.post(tenant, TINY).status_code == 200
        wait_until_released(stack, tenant)
    assert stack.post(tenant, "[[sandbox: tokens=1020]]").status_code == 200
    wait_until_released(stack, tenant)
    response = stack.post(tenant, TINY)
    assert_refused(stack, tenant, response, 429, "rate_limited_output_tokens")
    limit, remaining, _ = rate_headers(response, "output-tokens")
    assert limit == 2_000
    assert 900 <= remaining < 1_024


def test_a_stream_counts_against_the_token_rate(stack: LiveStack) -> None:
    tenant = stack.make_tenant(key={"output_tokens_per_minute": 1_500})
    assert stack.post(tenant, "[[sandbox: tokens=1000]]", stream=True).status_code == 200
    wait_until_released(stack, tenant)
    assert_error(stack.post(tenant, TINY, stream=True), 429, "rate_limited_output_tokens")


@pytest.mark.parametrize("scope", SCOPES)
def test_requests_at_once(stack: LiveStack, scope: str) -> None:
    tenant = limited(stack, scope, concurrent_requests=2)
    responses = post_at_once(stack.base_url, [(tenant, "[[sandbox: delay=700]]")] * 6)
    refused = [response for response in responses if response.status_code != 200]
    assert len(refused) == 4
    for response in refused:
        assert "2 may run" in assert_error(response, 429, "rate_limited_concurrency")
        assert response.headers["retry-after"] == "1"
    wait_until_released(stack, tenant)
    assert stack.post(tenant, TINY).status_code == 200


def test_a_limit_changed_applies_at_once(stack: LiveStack, alice: Tenant) -> None:
    assert stack.post(alice, TINY).status_code == 200
    change_key(alice.key, fields={"requests_per_minute": 1})
    publish_pending_changes()
    assert stack.post(alice, TINY).status_code == 200
    assert_error(stack.post(alice, TINY), 429, "rate_limited_requests")
    change_key(alice.key, fields={"requests_per_minute": None})
    publish_pending_changes()
    assert stack.post(alice, TINY).status_code == 200


def test_the_tighter_of_key_and_organization_shows(stack: LiveStack) -> None:
    tenant = stack.make_tenant(key={"requests_per_minute": 5}, requests_per_minute=50)
    assert rate_headers(stack.post(tenant, TINY), "requests")[:2] == (5, 4)
    other_key, secret = create_key(tenant.organization, name="other", created_by=None)
    publish_pending_changes()
    other = Tenant(tenant.organization, other_key, secret)
    assert rate_headers(stack.post(other, TINY), "requests")[:2] == (50, 48)


def test_streams_and_errors_carry_the_headers_too(stack: LiveStack) -> None:
    tenant = stack.make_tenant(key={"requests_per_minute": 10})
    with HTTP.stream(
        "POST", stack.base_url + "/v1/messages", headers=tenant.headers, json=body(TINY, stream=True)
    ) as response:
        assert rate_headers(response, "requests")[:2] == (10, 9)
        response.read()
    failed = stack.post(tenant, "[[sandbox: status=500]]")
    assert_error(failed, 502, "upstream_error")
    assert rate_headers(failed, "requests")[:2] == (10, 8)
    poor = stack.make_tenant(credit_usd="0", key={"requests_per_minute": 10})
    refused = stack.post(poor)
    assert_error(refused, 402, "insufficient_balance")
    assert rate_headers(refused, "requests")[0] == 10


def test_an_upstreams_limit_is_not_ours(stack: LiveStack) -> None:
    """Its 429 is our 503, with its retry-after: the client's own limit was not reached."""
    tenant = stack.make_tenant(key={"requests_per_minute": 10})
    response = stack.post(tenant, "[[sandbox: status=429; retry_after=7]]")
    assert_error(response, 503, "upstream_rate_limited")
    assert response.headers["retry-after"] == "7"
    assert rate_headers(response, "requests")[:2] == (10, 9)
