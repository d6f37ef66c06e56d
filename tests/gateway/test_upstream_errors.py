"""Upstreams that fail before a byte has reached the client: the documented error, nothing billed, nothing held."""

import gzip
from typing import Any

import httpx
import pytest

from billing.admission.blocking import read_admission_state
from billing.models import UsageRecord
from billing.money import parse_usd
from gateway.http.client import MAX_RESPONSE_BYTES
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_error, attempts_of, wait_for_failure, wait_for_record, wait_until_released
from tests.gateway.scripted_upstream import scripted_upstream, whole
from tests.gateway.wire import read_stream
from tests.support.extra_gateway import ExtraGateway
from tests.support.live_stack import HTTP, LiveStack, Tenant, body

EITHER_WAY = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


def assert_not_billed(stack: LiveStack, tenant: Tenant, code: str) -> list[dict[str, Any]]:
    """Check that the request was released under this code, and return its attempts."""
    failure = wait_for_failure(stack, tenant)
    assert failure.error_code == code
    state = wait_until_released(stack, tenant)
    assert state.credit_nanos == parse_usd("10")
    assert stack.records(tenant) == []
    attempts: list[dict[str, Any]] = failure.attempts
    return attempts


def post_to(gateway: ExtraGateway, tenant: Tenant, text: str, **fields: Any) -> httpx.Response:
    url = gateway.base_url + "/v1/messages"
    return HTTP.post(url, headers=tenant.headers, json=body(text, **fields), timeout=20)


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
    stack: LiveStack, alice: Tenant, directive: str, expected: tuple[int, str, int], streamed: bool
) -> None:
    status, code, upstream_status = expected
    response = stack.post(alice, f"[[sandbox: {directive}]]", stream=streamed)
    assert_error(response, status, code)
    [attempt] = assert_not_billed(stack, alice, code)
    assert attempt["status"] == upstream_status or attempt["outcome"] == "upstream_broken"
    assert len(attempts_of(stack, response)) == 1


@pytest.mark.parametrize("directive", ["bad_json", "truncated_json", "wrong_content_length", "reset=mid", "close=mid"])
def test_a_whole_reply_that_is_broken(stack: LiveStack, alice: Tenant, directive: str) -> None:
    assert_error(stack.post(alice, f"[[sandbox: {directive}]]"), 502, "upstream_broken")
    assert_not_billed(stack, alice, "upstream_broken")


@EITHER_WAY
@pytest.mark.parametrize("moment", ["before_headers", "after_headers"])
def test_an_upstream_that_never_answers(
    stack: LiveStack, impatient: ExtraGateway, alice: Tenant, moment: str, streamed: bool
) -> None:
    if not streamed:
        assert_error(post_to(impatient, alice, f"[[sandbox: hang={moment}]]"), 502, "upstream_timeout")
    else:  # Pings went out meanwhile, so the error comes as an event.
        stream = read_stream(impatient.base_url, alice, f"[[sandbox: hang={moment}]]")
        assert set(stream.names[:-1]) == {"ping"}
        assert stream.names[-1] == "error"
        assert stream.only("error")["error"]["code"] == "upstream_timeout"
    assert_not_billed(stack, alice, "upstream_timeout")


def test_a_whole_reply_that_stops_midway(stack: LiveStack, impatient: ExtraGateway, alice: Tenant) -> None:
    assert_error(post_to(impatient, alice, "[[sandbox: hang=mid]]"), 502, "upstream_timeout")
    assert_not_billed(stack, alice, "upstream_timeout")


def test_a_whole_reply_that_drips_for_ever(stack: LiveStack, impatient: ExtraGateway, alice: Tenant) -> None:
    """No byte is late, but all together are: the total time-out ends it."""
    response = post_to(impatient, alice, "[[sandbox: tokens=1000; drip=20; pace=100]]")
    assert_error(response, 502, "upstream_timeout")
    assert_not_billed(stack, alice, "upstream_timeout")


def test_a_whole_reply_that_is_too_large(stack: LiveStack, alice: Tenant) -> None:
    """The sandbox writes 64 MiB of text, and the JSON around it passes the bound."""
    assert_error(stack.post(alice, f"[[sandbox: flood={MAX_RESPONSE_BYTES}]]"), 502, "upstream_broken")
    assert_not_billed(stack, alice, "upstream_broken")
    assert stack.post(stack.make_tenant()).status_code == 200


def test_the_texts_of_an_upstream_are_not_passed_on(stack: LiveStack, alice: Tenant) -> None:
    for directive in ("status=401", "status=403", "status=429", "status=500", "status=503", "status=529"):
        response = stack.post(alice, f"[[sandbox: {directive}; message=org-5a6db0 of ours is over its limit]]")
        assert "5a6db0" not in response.text
        assert "sandbox" not in response.text
    assert "sandbox" not in stack.post(alice, "[[sandbox: html]]").text


def test_an_error_that_is_compressed_is_told_by_its_status(stack: LiveStack, alice: Tenant) -> None:
    """Firewalls and proxies before a provider compress unasked. Its body is not read; the status is no fault."""
    with scripted_upstream() as upstream:
        sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
        for status, code in (("403 No", "upstream_refused_request"), ("400 No", "upstream_invalid_request")) * 3:
            upstream.script = whole(gzip.compress(b"<html>"), status=status, headers=b"content-encoding: gzip\r\n")
            response = stack.post(alice, model=sold.model_id)
            assert_error(response, 402 if status == "403 No" else 400, code)
        assert len(upstream.requests) == 6  # No breaker is open.


def test_the_text_of_a_400_is_passed_on(stack: LiveStack, alice: Tenant) -> None:
    text = "adaptive thinking is not supported on this model"
    response = stack.post(alice, f"[[sandbox: status=400; message={text}]]")
    assert assert_error(response, 400, "upstream_invalid_request") == text


def test_retry_after_of_an_overloaded_upstream(stack: LiveStack, alice: Tenant) -> None:
    short = stack.post(alice, "[[sandbox: status=529; retry_after=5]]")
    assert (short.headers["retry-after"], short.headers.get("x-should-retry")) == ("5", None)
    long = stack.post(alice, "[[sandbox: status=529; retry_after=600]]")
    assert (long.headers["retry-after"], long.headers["x-should-retry"]) == ("600", "false")


# --- usage that cannot be true ---------------------------------------------------------------------------------------


@EITHER_WAY
@pytest.mark.parametrize("directive", ["no_usage", "negative_usage", "absurd_usage"])
def test_usage_that_is_missing_or_cannot_be_true(
    stack: LiveStack, alice: Tenant, directive: str, streamed: bool
) -> None:
    """It is estimated from what was delivered, shown as billed, and never above the hold; never billed as nothing."""
    text = f"[[sandbox: {directive}; tokens=100]]"
    if streamed:
        stream = read_stream(stack.base_url, alice, text)
        assert stream.names[-1] == "message_stop"
        shown = stream.only("message_delta")["usage"]
    else:
        response = stack.post(alice, text)
        assert response.status_code == 200
        shown = response.json()["usage"]
    record = wait_for_record(stack, alice)
    assert record.usage_source == UsageRecord.Source.ESTIMATED
    assert (record.input_tokens, record.output_tokens) == (shown["input_tokens"], shown["output_tokens"])
    assert 80 <= record.output_tokens <= 125
    assert record.input_tokens > 0
    assert 0 < record.cost_nanos <= record.hold_nanos
    wait_until_released(stack, alice)


@EITHER_WAY
def test_usage_beyond_the_hold_is_billed_when_it_can_be_true(stack: LiveStack, streamed: bool) -> None:
    """A complete reply costs what the provider counted; settlement never refuses."""
    poor = stack.make_tenant(credit_usd="0.05")
    response = stack.post(poor, "[[sandbox: input_tokens=20000]]", stream=streamed)
    assert response.status_code == 200
    response.read()
    record = wait_for_record(stack, poor)
    assert (record.usage_source, record.input_tokens) == (UsageRecord.Source.PROVIDER, 20_000)
    assert record.cost_nanos == 20_000 * 3_000 + record.output_tokens * 15_000 > record.hold_nanos
    assert wait_until_released(stack, poor).credit_nanos == parse_usd("0.05") - record.cost_nanos < 0
    assert_error(stack.post(poor), 402, "insufficient_balance")


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
def test_the_next_route_serves(stack: LiveStack, alice: Tenant, directive: str, outcome: str, streamed: bool) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], routes=2)
    stack.sandbox.control(directive, model=sold.upstream_models[0])
    response = stack.post(alice, model=sold.model_id, stream=streamed)
    assert response.status_code == 200
    response.read()
    record = stack.record(response)
    assert [attempt["upstream"] for attempt in record.attempts] == sold.upstreams
    assert [attempt["outcome"] for attempt in record.attempts] == [outcome, "served"]
    assert record.upstream == sold.upstreams[1]
    assert record.usage_source == UsageRecord.Source.PROVIDER
    first, second = attempts_of(stack, response)
    # What is compressed is refused by its headers: the sandbox may have written all of it by then.
    assert directive == "gzip" or not first.is_complete
    assert second.is_complete
    wait_until_released(stack, alice)


def test_a_whole_reply_that_broke_is_fetched_elsewhere(stack: LiveStack, alice: Tenant) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], routes=2)
    stack.sandbox.control("truncated_json", model=sold.upstream_models[0])
    record = stack.record(stack.post(alice, model=sold.model_id))
    assert [attempt["outcome"] for attempt in record.attempts] == ["upstream_broken", "served"]


@EITHER_WAY
@pytest.mark.parametrize("moment", ["before_headers", "after_headers"])
def test_a_silent_upstream_leaves_time_for_the_next(
    stack: LiveStack, impatient: ExtraGateway, alice: Tenant, moment: str, streamed: bool
) -> None:
    sold = sell_catalog_model(stack, alice, [impatient.base_url], routes=2)
    stack.sandbox.control(f"hang={moment}", model=sold.upstream_models[0])
    response = post_to(impatient, alice, "Hello!", model=sold.model_id, stream=streamed)
    assert response.status_code == 200
    assert "error" not in response.text
    record = stack.record(response)
    assert [attempt["outcome"] for attempt in record.attempts] == ["upstream_timeout", "served"]
    assert record.upstream == sold.upstreams[1]


def test_an_unreachable_upstream_is_passed_over(stack: LiveStack, alice: Tenant) -> None:
    urls = ["http://127.0.0.1:1", stack.sandbox.url]
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=urls)
    record = stack.record(stack.post(alice, model=sold.model_id))
    assert [attempt["outcome"] for attempt in record.attempts] == ["upstream_unreachable", "served"]


def test_the_clients_own_fault_is_not_tried_elsewhere(stack: LiveStack, alice: Tenant) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], routes=2)
    stack.sandbox.control("status=400; message=messages: no", model=sold.upstream_models[0])
    response = stack.post(alice, model=sold.model_id)
    assert assert_error(response, 400, "upstream_invalid_request") == "messages: no"
    assert len(assert_not_billed(stack, alice, "upstream_invalid_request")) == 1


def test_when_every_route_fails_the_last_says_why(stack: LiveStack, alice: Tenant) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], routes=2)
    stack.sandbox.control("status=500", model=sold.upstream_models[0])
    stack.sandbox.control("status=529; retry_after=4", model=sold.upstream_models[1])
    response = stack.post(alice, model=sold.model_id)
    assert_error(response, 503, "upstream_overloaded")
    assert response.headers["retry-after"] == "4"
    attempts = assert_not_billed(stack, alice, "upstream_overloaded")
    assert [attempt["status"] for attempt in attempts] == [500, 529]


def test_a_stream_that_broke_midway_is_not_begun_again(stack: LiveStack, alice: Tenant) -> None:
    """Bytes have reached the client: another route would begin a second reply after half of the first."""
    sold = sell_catalog_model(stack, alice, [stack.base_url], routes=2)
    stack.sandbox.control("reset=mid; tokens=200; pace=1", model=sold.upstream_models[0])
    stream = read_stream(stack.base_url, alice, model=sold.model_id)
    assert stream.names[-1] == "error"
    record = stack.record(stream.response)
    assert [attempt["upstream"] for attempt in record.attempts] == sold.upstreams[:1]
    state = read_admission_state(alice.organization.pk)
    assert state is not None
