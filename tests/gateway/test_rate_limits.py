"""Requests and tokens per minute, and requests at once: of a key and of an organization, by their own headers."""

import math
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from accounts.keys import change_key, create_key
from billing.admission.feed import publish_pending_changes
from tests.gateway.checks import assert_error, assert_refused, wait_until_released
from tests.gateway.wire import post_at_once
from tests.support.world import HTTP, Caller, World, body

TINY = "[[sandbox: tokens=1]]"
SCOPES = ["key", "organization"]


def limited(world: World, scope: str, **fields: Any) -> Caller:
    return world.caller(key=fields) if scope == "key" else world.caller(**fields)


def rate_headers(response: httpx.Response, kind: str) -> tuple[int, int, datetime]:
    """Return limit, remaining and reset."""
    prefix = f"anthropic-ratelimit-{kind}-"
    reset = datetime.strptime(response.headers[prefix + "reset"], "%Y-%m-%dT%H:%M:%S%z")
    return int(response.headers[prefix + "limit"]), int(response.headers[prefix + "remaining"]), reset


@pytest.mark.parametrize("scope", SCOPES)
def test_requests_per_minute(world: World, scope: str) -> None:
    caller = limited(world, scope, requests_per_minute=3)
    for left in (2, 1, 0):
        response = world.post(caller, TINY)
        assert response.status_code == 200
        limit, remaining, reset = rate_headers(response, "requests")
        assert (limit, remaining) == (3, left)
        assert 0 <= (reset - datetime.now(UTC)).total_seconds() + 1 <= 61
        assert "retry-after" not in response.headers
    response = world.post(caller, TINY)
    message = assert_error(response, 429, "rate_limited_requests")
    assert "3 requests per minute" in message
    assert 1 <= int(response.headers["retry-after"]) <= 20
    assert rate_headers(response, "requests")[:2] == (3, 0)
    assert "x-should-retry" not in response.headers
    wait_until_released(world, caller)
    assert_refused(world, caller, world.post(caller, TINY), 429, "rate_limited_requests")


def test_retry_after_is_long_enough(world: World) -> None:
    """A client that waits exactly that long is admitted."""
    caller = world.caller(key={"requests_per_minute": 60})
    responses = post_at_once(world.base_url, [(caller, TINY)] * 66)
    refused = [response for response in responses if response.status_code != 200]
    assert refused
    for response in refused:
        assert_error(response, 429, "rate_limited_requests")
        assert response.headers["retry-after"] == "1"
    time.sleep(1)
    assert world.post(caller, TINY).status_code == 200


@pytest.mark.parametrize("scope", SCOPES)
def test_input_tokens_per_minute(world: World, scope: str) -> None:
    caller = limited(world, scope, input_tokens_per_minute=1_000)
    long = "x" * 1_500 + TINY
    first = world.post(caller, long)
    assert first.status_code == 200
    limit, remaining, _ = rate_headers(first, "input-tokens")
    assert limit == 1_000
    assert 0 < remaining < 500
    assert rate_headers(first, "tokens")[:2] == (limit, remaining)
    wait_until_released(world, caller)
    # The bound held two bytes for a token; what was really used is less, and the rest was given back.
    used = first.json()["usage"]["input_tokens"]
    response = world.post(caller, "x" * 4_000 + TINY)
    assert_refused(world, caller, response, 429, "rate_limited_input_tokens")
    assert int(response.headers["retry-after"]) <= math.ceil(used * 60 / 1_000)
    assert world.post(caller, TINY).status_code == 200


@pytest.mark.parametrize("scope", SCOPES)
def test_output_tokens_per_minute_are_reserved_and_given_back(world: World, scope: str) -> None:
    caller = limited(world, scope, output_tokens_per_minute=2_000)
    for _ in range(4):  # Each reserves 1,024 of the 2,000, and uses one.
        assert world.post(caller, TINY).status_code == 200
        wait_until_released(world, caller)
    assert world.post(caller, "[[sandbox: tokens=1020]]").status_code == 200
    wait_until_released(world, caller)
    response = world.post(caller, TINY)
    assert_refused(world, caller, response, 429, "rate_limited_output_tokens")
    limit, remaining, _ = rate_headers(response, "output-tokens")
    assert limit == 2_000
    assert 900 <= remaining < 1_024


def test_a_stream_counts_against_the_token_rate(world: World) -> None:
    caller = world.caller(key={"output_tokens_per_minute": 1_500})
    assert world.post(caller, "[[sandbox: tokens=1000]]", stream=True).status_code == 200
    wait_until_released(world, caller)
    assert_error(world.post(caller, TINY, stream=True), 429, "rate_limited_output_tokens")


@pytest.mark.parametrize("scope", SCOPES)
def test_requests_at_once(world: World, scope: str) -> None:
    caller = limited(world, scope, concurrent_requests=2)
    responses = post_at_once(world.base_url, [(caller, "[[sandbox: delay=700]]")] * 6)
    refused = [response for response in responses if response.status_code != 200]
    assert len(refused) == 4
    for response in refused:
        assert "2 may run" in assert_error(response, 429, "rate_limited_concurrency")
        assert response.headers["retry-after"] == "1"
    wait_until_released(world, caller)
    assert world.post(caller, TINY).status_code == 200


def test_a_limit_changed_applies_at_once(world: World, alice: Caller) -> None:
    assert world.post(alice, TINY).status_code == 200
    change_key(alice.key, fields={"requests_per_minute": 1})
    publish_pending_changes()
    assert world.post(alice, TINY).status_code == 200
    assert_error(world.post(alice, TINY), 429, "rate_limited_requests")
    change_key(alice.key, fields={"requests_per_minute": None})
    publish_pending_changes()
    assert world.post(alice, TINY).status_code == 200


def test_the_tighter_of_key_and_organization_shows(world: World) -> None:
    caller = world.caller(key={"requests_per_minute": 5}, requests_per_minute=50)
    assert rate_headers(world.post(caller, TINY), "requests")[:2] == (5, 4)
    other_key, secret = create_key(caller.organization, name="other", created_by=None)
    publish_pending_changes()
    other = Caller(caller.organization, other_key, secret)
    assert rate_headers(world.post(other, TINY), "requests")[:2] == (50, 48)


def test_streams_and_errors_carry_the_headers_too(world: World) -> None:
    caller = world.caller(key={"requests_per_minute": 10})
    with HTTP.stream(
        "POST", world.base_url + "/v1/messages", headers=caller.headers, json=body(TINY, stream=True)
    ) as response:
        assert rate_headers(response, "requests")[:2] == (10, 9)
        response.read()
    failed = world.post(caller, "[[sandbox: status=500]]")
    assert_error(failed, 502, "upstream_error")
    assert rate_headers(failed, "requests")[:2] == (10, 8)
    poor = world.caller(credit_usd="0", key={"requests_per_minute": 10})
    refused = world.post(poor)
    assert_error(refused, 402, "insufficient_balance")
    assert rate_headers(refused, "requests")[0] == 10


def test_an_upstreams_limit_is_not_ours(world: World) -> None:
    """Its 429 is our 503, with its retry-after: the client's own limit was not reached."""
    caller = world.caller(key={"requests_per_minute": 10})
    response = world.post(caller, "[[sandbox: status=429; retry_after=7]]")
    assert_error(response, 503, "upstream_rate_limited")
    assert response.headers["retry-after"] == "7"
    assert rate_headers(response, "requests")[:2] == (10, 9)
