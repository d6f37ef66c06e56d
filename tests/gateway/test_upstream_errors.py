"""Upstreams that fail before a byte has reached the client: the documented error, nothing billed, nothing held."""

from typing import Any

import httpx
import pytest

from billing.admission.worker import read_figures
from billing.models import UsageRecord
from billing.money import parse_usd
from gateway.upstreams.http_client import MAX_RESPONSE_BYTES
from tests.gateway.checks import assert_error, attempts_of, wait_for_failure, wait_for_record, wait_until_released
from tests.gateway.offers import offer
from tests.gateway.wire import read_stream
from tests.support.extra_gateway import ExtraGateway
from tests.support.world import HTTP, Caller, World, body

EITHER_WAY = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


def assert_not_billed(world: World, caller: Caller, code: str) -> list[dict[str, Any]]:
    """Check that the request was released under this code, and return its attempts."""
    failure = wait_for_failure(world, caller)
    assert failure.error_code == code
    figures = wait_until_released(world, caller)
    assert figures.credit_nanos == parse_usd("10")
    assert world.records(caller) == []
    attempts: list[dict[str, Any]] = failure.attempts
    return attempts


def post_to(gateway: ExtraGateway, caller: Caller, text: str, **fields: Any) -> httpx.Response:
    url = gateway.base_url + "/v1/messages"
    return HTTP.post(url, headers=caller.headers, json=body(text, **fields), timeout=20)


ANSWERS = {
    "status=400; message=messages.0: too odd": (400, "upstream_invalid_request", 400),
    "status=401": (502, "upstream_refused_credential", 401),
    "status=403": (402, "upstream_refused_request", 403),
    "status=404": (502, "upstream_error", 404),
    "status=413": (413, "upstream_request_too_large", 413),
    "status=429": (503, "upstream_rate_limited", 429),
    "status=500": (502, "upstream_error", 500),
    "status=503": (503, "upstream_overloaded", 503),
    "status=529": (503, "upstream_overloaded", 529),
    "html": (502, "upstream_error", 502),
    "string_error": (502, "upstream_error", 500),
    "reset=before_headers": (502, "upstream_broken", 0),
    "reset=after_headers": (502, "upstream_broken", 200),
    "gzip": (502, "upstream_broken", 200),
}


@EITHER_WAY
@pytest.mark.parametrize(("directive", "expected"), ANSWERS.items(), ids=ANSWERS.keys())
def test_an_upstream_that_fails(
    world: World, alice: Caller, directive: str, expected: tuple[int, str, int], streamed: bool
) -> None:
    status, code, upstream_status = expected
    response = world.post(alice, f"[[sandbox: {directive}]]", stream=streamed)
    assert_error(response, status, code)
    [attempt] = assert_not_billed(world, alice, code)
    assert attempt["status"] == upstream_status or attempt["outcome"] == "upstream_broken"
    assert len(attempts_of(world, response)) == 1


@pytest.mark.parametrize("directive", ["bad_json", "truncated_json", "wrong_content_length", "reset=mid", "close=mid"])
def test_a_whole_reply_that_is_broken(world: World, alice: Caller, directive: str) -> None:
    assert_error(world.post(alice, f"[[sandbox: {directive}]]"), 502, "upstream_broken")
    assert_not_billed(world, alice, "upstream_broken")


@EITHER_WAY
@pytest.mark.parametrize("moment", ["before_headers", "after_headers"])
def test_an_upstream_that_never_answers(
    world: World, impatient: ExtraGateway, alice: Caller, moment: str, streamed: bool
) -> None:
    if not streamed:
        assert_error(post_to(impatient, alice, f"[[sandbox: hang={moment}]]"), 502, "upstream_timeout")
    else:  # Pings went out meanwhile, so the error comes as an event.
        stream = read_stream(impatient.base_url, alice, f"[[sandbox: hang={moment}]]")
        assert set(stream.names[:-1]) == {"ping"}
        assert stream.names[-1] == "error"
        assert stream.only("error")["error"]["code"] == "upstream_timeout"
    assert_not_billed(world, alice, "upstream_timeout")


def test_a_whole_reply_that_stops_midway(world: World, impatient: ExtraGateway, alice: Caller) -> None:
    assert_error(post_to(impatient, alice, "[[sandbox: hang=mid]]"), 502, "upstream_timeout")
    assert_not_billed(world, alice, "upstream_timeout")


def test_a_whole_reply_that_drips_for_ever(world: World, impatient: ExtraGateway, alice: Caller) -> None:
    """No byte is late, but all together are: the total time-out ends it."""
    response = post_to(impatient, alice, "[[sandbox: tokens=1000; drip=20; pace=100]]")
    assert_error(response, 502, "upstream_timeout")
    assert_not_billed(world, alice, "upstream_timeout")


def test_a_whole_reply_that_is_too_large(world: World, alice: Caller) -> None:
    """The sandbox writes 64 MiB of text, and the JSON around it passes the bound."""
    assert_error(world.post(alice, f"[[sandbox: flood={MAX_RESPONSE_BYTES}]]"), 502, "upstream_broken")
    assert_not_billed(world, alice, "upstream_broken")
    assert world.post(world.caller()).status_code == 200


def test_the_texts_of_an_upstream_are_not_passed_on(world: World, alice: Caller) -> None:
    for directive in ("status=401", "status=403", "status=429", "status=500", "status=503", "status=529"):
        response = world.post(alice, f"[[sandbox: {directive}; message=org-5a6db0 of ours is over its limit]]")
        assert "5a6db0" not in response.text
        assert "sandbox" not in response.text
    assert "sandbox" not in world.post(alice, "[[sandbox: html]]").text


def test_the_wording_of_a_400_is_passed_on(world: World, alice: Caller) -> None:
    wording = "adaptive thinking is not supported on this model"
    response = world.post(alice, f"[[sandbox: status=400; message={wording}]]")
    assert assert_error(response, 400, "upstream_invalid_request") == wording


def test_retry_after_of_an_overloaded_upstream(world: World, alice: Caller) -> None:
    short = world.post(alice, "[[sandbox: status=529; retry_after=5]]")
    assert (short.headers["retry-after"], short.headers.get("x-should-retry")) == ("5", None)
    long = world.post(alice, "[[sandbox: status=529; retry_after=600]]")
    assert (long.headers["retry-after"], long.headers["x-should-retry"]) == ("600", "false")


# --- usage that cannot be true ---------------------------------------------------------------------------------------


@EITHER_WAY
@pytest.mark.parametrize("directive", ["no_usage", "negative_usage", "absurd_usage"])
def test_usage_that_is_missing_or_cannot_be_true(world: World, alice: Caller, directive: str, streamed: bool) -> None:
    """It is estimated from what was delivered, shown as billed, and never above the hold; never billed as nothing."""
    text = f"[[sandbox: {directive}; tokens=100]]"
    if streamed:
        stream = read_stream(world.base_url, alice, text)
        assert stream.names[-1] == "message_stop"
        shown = stream.only("message_delta")["usage"]
    else:
        response = world.post(alice, text)
        assert response.status_code == 200
        shown = response.json()["usage"]
    record = wait_for_record(world, alice)
    assert record.usage_source == UsageRecord.Source.ESTIMATED
    assert (record.input_tokens, record.output_tokens) == (shown["input_tokens"], shown["output_tokens"])
    assert 80 <= record.output_tokens <= 125
    assert record.input_tokens > 0
    assert 0 < record.cost_nanos <= record.hold_nanos
    wait_until_released(world, alice)


@EITHER_WAY
def test_usage_beyond_the_hold_is_billed_when_it_can_be_true(world: World, streamed: bool) -> None:
    """A complete reply costs what the provider counted; settlement never refuses."""
    poor = world.caller(credit_usd="0.05")
    response = world.post(poor, "[[sandbox: input_tokens=20000]]", stream=streamed)
    assert response.status_code == 200
    response.read()
    record = wait_for_record(world, poor)
    assert (record.usage_source, record.input_tokens) == (UsageRecord.Source.PROVIDER, 20_000)
    assert record.cost_nanos == 20_000 * 3_000 + record.output_tokens * 15_000 > record.hold_nanos
    assert wait_until_released(world, poor).credit_nanos == parse_usd("0.05") - record.cost_nanos < 0
    assert_error(world.post(poor), 402, "insufficient_balance")


# --- failover --------------------------------------------------------------------------------------------------------


@EITHER_WAY
@pytest.mark.parametrize(
    ("directive", "outcome"),
    [
        ("status=429", "upstream_rate_limited"),
        ("status=529", "upstream_overloaded"),
        ("status=500", "upstream_error"),
        ("status=401", "upstream_refused_credential"),
        ("html", "upstream_error"),
        ("reset=before_headers", "upstream_broken"),
        ("reset=after_headers", "upstream_broken"),
        ("gzip", "upstream_broken"),
    ],
)
def test_the_next_route_serves(world: World, alice: Caller, directive: str, outcome: str, streamed: bool) -> None:
    offered = offer(world, alice, [world.base_url], routes=2)
    world.sandbox.control(directive, model=offered.upstream_models[0])
    response = world.post(alice, model=offered.model_id, stream=streamed)
    assert response.status_code == 200
    response.read()
    record = world.record(response)
    assert [attempt["upstream"] for attempt in record.attempts] == offered.upstreams
    assert [attempt["outcome"] for attempt in record.attempts] == [outcome, "served"]
    assert record.upstream == offered.upstreams[1]
    assert record.usage_source == UsageRecord.Source.PROVIDER
    first, second = attempts_of(world, response)
    # What is compressed is refused by its headers: the sandbox may have written all of it by then.
    assert directive == "gzip" or not first.is_complete
    assert second.is_complete
    wait_until_released(world, alice)


def test_a_whole_reply_that_broke_is_fetched_elsewhere(world: World, alice: Caller) -> None:
    offered = offer(world, alice, [world.base_url], routes=2)
    world.sandbox.control("truncated_json", model=offered.upstream_models[0])
    record = world.record(world.post(alice, model=offered.model_id))
    assert [attempt["outcome"] for attempt in record.attempts] == ["upstream_broken", "served"]


@EITHER_WAY
@pytest.mark.parametrize("moment", ["before_headers", "after_headers"])
def test_a_silent_upstream_leaves_time_for_the_next(
    world: World, impatient: ExtraGateway, alice: Caller, moment: str, streamed: bool
) -> None:
    offered = offer(world, alice, [impatient.base_url], routes=2)
    world.sandbox.control(f"hang={moment}", model=offered.upstream_models[0])
    response = post_to(impatient, alice, "Hello!", model=offered.model_id, stream=streamed)
    assert response.status_code == 200
    assert "error" not in response.text
    record = world.record(response)
    assert [attempt["outcome"] for attempt in record.attempts] == ["upstream_timeout", "served"]
    assert record.upstream == offered.upstreams[1]


def test_an_unreachable_upstream_is_passed_over(world: World, alice: Caller) -> None:
    urls = ["http://127.0.0.1:1", world.sandbox.url]
    offered = offer(world, alice, [world.base_url], upstream_urls=urls)
    record = world.record(world.post(alice, model=offered.model_id))
    assert [attempt["outcome"] for attempt in record.attempts] == ["upstream_unreachable", "served"]


def test_the_clients_own_fault_is_not_tried_elsewhere(world: World, alice: Caller) -> None:
    offered = offer(world, alice, [world.base_url], routes=2)
    world.sandbox.control("status=400; message=messages: no", model=offered.upstream_models[0])
    response = world.post(alice, model=offered.model_id)
    assert assert_error(response, 400, "upstream_invalid_request") == "messages: no"
    assert len(assert_not_billed(world, alice, "upstream_invalid_request")) == 1


def test_when_every_route_fails_the_last_says_why(world: World, alice: Caller) -> None:
    offered = offer(world, alice, [world.base_url], routes=2)
    world.sandbox.control("status=500", model=offered.upstream_models[0])
    world.sandbox.control("status=529; retry_after=4", model=offered.upstream_models[1])
    response = world.post(alice, model=offered.model_id)
    assert_error(response, 503, "upstream_overloaded")
    assert response.headers["retry-after"] == "4"
    attempts = assert_not_billed(world, alice, "upstream_overloaded")
    assert [attempt["status"] for attempt in attempts] == [500, 529]


def test_a_stream_that_broke_midway_is_not_begun_again(world: World, alice: Caller) -> None:
    """Bytes have reached the client: another route would begin a second reply after half of the first."""
    offered = offer(world, alice, [world.base_url], routes=2)
    world.sandbox.control("reset=mid; tokens=200; pace=1", model=offered.upstream_models[0])
    stream = read_stream(world.base_url, alice, model=offered.model_id)
    assert stream.names[-1] == "error"
    record = world.record(stream.response)
    assert [attempt["upstream"] for attempt in record.attempts] == offered.upstreams[:1]
    figures = read_figures(alice.organization.pk)
    assert figures is not None
