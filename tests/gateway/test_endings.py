"""How a stream can end: what is billed, from which source, that nothing stays held, and when the upstream is closed."""

import math
import time
from typing import Any

import pytest

from billing.models import FailedRequest, UsageRecord
from billing.money import parse_usd
from sandbox.journal import COMPLETE, JournalRecord
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import (
    assert_billed_once,
    assert_closed_in_time,
    assert_nothing_is_held,
    attempts_of,
    depart,
    started_attempts,
    wait_for_attempt,
    wait_for_failure,
    wait_for_record,
    wait_until_released,
)
from tests.gateway.wire import Connection, read_events, read_stream
from tests.support.extra_gateway import ExtraGateway
from tests.support.live_stack import LiveStack, Tenant

SLOW = "[[sandbox: tokens=2000; pace=20]]"
MEBIBYTE = 1024**2
LEAVING = pytest.mark.parametrize("leave", ["reset", "close"])
PROVIDER, ESTIMATED, PARTIAL, ORPHAN = (
    UsageRecord.Source.PROVIDER,
    UsageRecord.Source.ESTIMATED,
    UsageRecord.Source.PARTIAL,
    UsageRecord.Source.ORPHAN,
)


def journal_usage(attempt: JournalRecord) -> tuple[int, int]:
    assert attempt.usage is not None
    return attempt.usage["input"], attempt.usage["output"]


# --- complete --------------------------------------------------------------------------------------------------------


def test_complete(stack: LiveStack, alice: Tenant) -> None:
    stream = read_stream(stack.base_url, alice, "[[sandbox: tokens=300]]")
    # The client has seen the end, so Redis has the usage already: there is nothing to wait for.
    assert_nothing_is_held(stack, alice)
    record = wait_for_record(stack, alice)
    attempt = wait_for_attempt(stack, stream.response)
    assert attempt.delivered == COMPLETE
    assert record.usage_source == PROVIDER
    assert (record.input_tokens, record.output_tokens) == journal_usage(attempt)
    assert_billed_once(stack, alice, record)


# --- the client leaves -----------------------------------------------------------------------------------------------


@LEAVING
def test_the_client_leaves_midway(stack: LiveStack, alice: Tenant, leave: str) -> None:
    """The upstream stops billing when it is cancelled: it is closed, and what was delivered is estimated."""
    with Connection(stack.base_url) as connection:
        connection.send_message(alice, SLOW, stream=True, max_tokens=4_000)
        received = connection.read_until(b"content_block_delta")
        while received.count(b"content_block_delta") < 20:
            received = connection.receive()
        left_at = depart(connection, leave)
    record = wait_for_record(stack, alice)
    attempt = wait_for_attempt(stack, record)
    assert_closed_in_time(attempt, left_at)
    assert record.usage_source == ESTIMATED
    assert record.input_tokens == journal_usage(attempt)[0]
    seen_chars = len("".join(event.data["delta"]["text"] for event in deltas(received)))
    assert seen_chars // 6 <= record.output_tokens <= math.ceil(attempt.text_chars / 3)
    assert record.cost_nanos <= record.hold_nanos
    assert_billed_once(stack, alice, record)


def deltas(received: bytes) -> list[Any]:
    """Return the text deltas of a raw answer, its chunked framing left out."""
    text = received.partition(b"\r\n\r\n")[2].decode()
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.startswith(("event:", "data:"))]
    blocks = [f"{event}\n{data}\n\n" for event, data in zip(lines[::2], lines[1::2], strict=False)]
    return [event for event in read_events("".join(blocks)) if event.name == "content_block_delta"]


@LEAVING
def test_the_client_leaves_an_upstream_that_bills_anyway(stack: LiveStack, alice: Tenant, leave: str) -> None:
    """Then it is read to its end without a client, and billed as complete."""
    sold = sell_catalog_model(stack, alice, [stack.base_url], bills_when_cancelled=True)
    with Connection(stack.base_url) as connection:
        text = "[[sandbox: tokens=300; pace=10]]"
        connection.send_message(alice, text, stream=True, model=sold.model_id)
        connection.read_until(b"content_block_delta")
        depart(connection, leave)
    record = wait_for_record(stack, alice)
    attempt = wait_for_attempt(stack, record)
    assert attempt.delivered == COMPLETE
    assert record.usage_source == PROVIDER
    assert (record.input_tokens, record.output_tokens) == journal_usage(attempt)
    assert record.output_tokens == 300
    assert_billed_once(stack, alice, record)


def test_an_upstream_that_bills_anyway_is_not_read_for_ever(
    stack: LiveStack, impatient: ExtraGateway, alice: Tenant
) -> None:
    sold = sell_catalog_model(stack, alice, [impatient.base_url], bills_when_cancelled=True)
    with Connection(impatient.base_url) as connection:
        connection.send_message(alice, SLOW, stream=True, model=sold.model_id, max_tokens=4_000)
        connection.read_until(b"content_block_delta")
        left_at = depart(connection, "reset")
    record = wait_for_record(stack, alice)
    attempt = wait_for_attempt(stack, record)
    assert_closed_in_time(attempt, left_at)
    assert record.usage_source == ESTIMATED
    assert 0 < record.output_tokens <= math.ceil(attempt.text_chars / 3)
    assert_billed_once(stack, alice, record)


def test_the_client_leaves_a_finished_stream_before_its_last_event(stack: LiveStack, alice: Tenant) -> None:
    """All was generated: it is billed by the provider's count, whenever the client left."""
    for _ in range(5):
        with Connection(stack.base_url) as connection:
            connection.send_message(alice, "[[sandbox: tokens=3]]", stream=True)
            connection.read_until(b"message_start")
            connection.reset()
    stack.wait_until(lambda: len(stack.records(alice)) == 5, "all are billed")
    for record in stack.records(alice):
        attempt = wait_for_attempt(stack, record)
        if attempt.delivered == COMPLETE:
            assert (record.usage_source, record.output_tokens) == (PROVIDER, 3)
    wait_until_released(stack, alice)


@LEAVING
def test_the_client_leaves_before_the_upstream_accepted(stack: LiveStack, alice: Tenant, leave: str) -> None:
    """An upstream that accepts shortly after is closed at once, and its input billed."""
    with Connection(stack.base_url) as connection:
        connection.send_message(alice, "[[sandbox: delay=1000; pace=20; tokens=2000]]", stream=True, max_tokens=4_000)
        stack.wait_until(lambda: started_attempts(stack, alice), "the upstream was called")
        left_at = depart(connection, leave)
    record = wait_for_record(stack, alice)
    assert_closed_in_time(wait_for_attempt(stack, record), left_at)
    assert record.usage_source == ESTIMATED
    assert record.output_tokens <= 20
    assert_billed_once(stack, alice, record)


def test_the_client_leaves_an_upstream_that_never_accepts(stack: LiveStack, alice: Tenant) -> None:
    """Nothing is billed when nothing is known after a few seconds, and the call is taken back."""
    with Connection(stack.base_url) as connection:
        connection.send_message(alice, "[[sandbox: delay=60000]]", stream=True)
        stack.wait_until(lambda: started_attempts(stack, alice), "the upstream was called")
        left_at = depart(connection, "reset")
    failure = wait_for_failure(stack, alice)
    assert failure.error_code == "client_left"
    assert_closed_in_time(wait_for_attempt(stack, failure), left_at)
    assert wait_until_released(stack, alice).credit_nanos == parse_usd("10")
    assert stack.records(alice) == []


def test_no_other_upstream_is_called_for_a_client_that_left(stack: LiveStack, alice: Tenant) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], routes=2)
    stack.sandbox.control("delay=500; status=529", model=sold.upstream_models[0])
    with Connection(stack.base_url) as connection:
        connection.send_message(alice, stream=True, model=sold.model_id)
        stack.wait_until(lambda: started_attempts(stack, alice), "the upstream was called")
        connection.reset()
    failure = wait_for_failure(stack, alice)
    assert failure.error_code == "client_left"
    assert [attempt["upstream"] for attempt in failure.attempts] == sold.upstreams[:1]
    assert len(attempts_of(stack, failure)) == 1


@LEAVING
def test_the_client_leaves_before_the_first_byte(stack: LiveStack, alice: Tenant, leave: str) -> None:
    """The upstream has accepted the call and may charge for its input: that is billed, and no output."""
    with Connection(stack.base_url) as connection:
        connection.send_message(alice, "[[sandbox: first=20000]]", stream=True)
        stack.wait_until(lambda: started_attempts(stack, alice), "the upstream was called")
        time.sleep(0.1)  # Its headers reach the gateway.
        left_at = depart(connection, leave)
    record = wait_for_record(stack, alice)
    assert_closed_in_time(wait_for_attempt(stack, record), left_at)
    assert (record.usage_source, record.output_tokens) == (ESTIMATED, 0)
    assert 0 < record.cost_nanos <= record.hold_nanos
    assert_billed_once(stack, alice, record)


@LEAVING
def test_the_client_leaves_a_whole_request(stack: LiveStack, alice: Tenant, leave: str) -> None:
    """Its upstream bills for all of it anyway, so it is fetched and billed like any other."""
    with Connection(stack.base_url) as connection:
        connection.send_message(alice, "[[sandbox: delay=500; tokens=40]]")
        stack.wait_until(lambda: started_attempts(stack, alice), "the upstream was called")
        depart(connection, leave)
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.output_tokens) == (PROVIDER, 40)
    assert wait_for_attempt(stack, record).delivered == COMPLETE
    assert_billed_once(stack, alice, record)


def test_the_client_leaves_a_whole_request_that_never_ends(
    stack: LiveStack, impatient: ExtraGateway, alice: Tenant
) -> None:
    with Connection(impatient.base_url) as connection:
        connection.send_message(alice, "[[sandbox: tokens=1000; drip=20; pace=50]]")
        stack.wait_until(lambda: started_attempts(stack, alice), "the upstream was called")
        time.sleep(0.1)
        left_at = depart(connection, "reset")
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.output_tokens) == (ESTIMATED, 0)
    assert_closed_in_time(wait_for_attempt(stack, record), left_at)
    assert_billed_once(stack, alice, record)


def test_the_client_leaves_while_it_sends(stack: LiveStack, alice: Tenant) -> None:
    before = len(stack.sandbox.journal())
    with Connection(stack.base_url) as connection:
        headers = [*alice.headers.items(), ("content-length", "1000")]
        connection.send("POST", "/v1/messages", headers)
        connection.socket.sendall(b'{"model": "anth')
        connection.reset()
    assert stack.post(alice).status_code == 200
    assert len(stack.sandbox.journal()) == before + 1
    wait_for_record(stack, alice)


def test_many_clients_that_leave_at_every_moment(stack: LiveStack, alice: Tenant) -> None:
    """Wherever in its life a request is left, it ends exactly once: billed or released."""
    count = 40
    for number in range(count):
        with Connection(stack.base_url) as connection:
            connection.send_message(alice, "[[sandbox: tokens=20; pace=1]]", stream=bool(number % 2))
            time.sleep(number * 0.0007)
            connection.reset()
    # One that was read to its end by the gateway after its client had left counts like any other.
    state = wait_until_released(stack, alice)
    failed = FailedRequest.objects.filter(organization_id=alice.organization.pk).count()
    records = stack.records(alice)
    assert len(records) + failed <= count
    assert state.credit_nanos == parse_usd("10") - sum(record.cost_nanos for record in records)
    for record in records:
        assert len(attempts_of(stack, record)) == 1


# --- the upstream breaks ---------------------------------------------------------------------------------------------

BREAKS = {
    "reset=mid; tokens=200; pace=1": ("api_error", "upstream_broken"),
    "close=mid; tokens=200": ("api_error", "upstream_protocol_error"),
    "error=mid; tokens=200": ("overloaded_error", "upstream_overloaded"),
    "malformed_sse; tokens=200": ("api_error", "upstream_protocol_error"),
    "huge_event=9000000": ("api_error", "upstream_protocol_error"),
    "hang=mid; tokens=200": ("api_error", "upstream_timeout"),
    "tokens=1000; pace=50": ("api_error", "upstream_timeout"),
}


@pytest.mark.parametrize(("directives", "expected"), BREAKS.items(), ids=BREAKS.keys())
def test_the_upstream_breaks_midway(
    stack: LiveStack, impatient: ExtraGateway, alice: Tenant, directives: str, expected: tuple[str, str]
) -> None:
    """The client is told by an error event, whatever the manner; what was delivered is billed, within the hold."""
    # Of the impatient one a time-out is expected, and nothing else: a busy machine would bring it one there, too.
    gateway = impatient if expected[1] == "upstream_timeout" else stack
    stream = read_stream(gateway.base_url, alice, f"[[sandbox: {directives}]]")
    assert stream.response.status_code == 200
    assert stream.names[0] == "message_start"
    assert stream.names[-1] == "error"
    assert "message_stop" not in stream.names
    assert "message_delta" not in stream.names
    error = stream.only("error")
    assert (error["error"]["type"], error["error"]["code"]) == expected
    assert error["request_id"] == stream.response.headers["request-id"]
    assert set(error) == {"type", "error", "request_id"}
    record = wait_for_record(stack, alice)
    assert record.usage_source == PARTIAL
    attempt = wait_for_attempt(stack, record)
    assert record.input_tokens == journal_usage(attempt)[0]
    delivered_tokens = len(stream.reply_text) / 4
    assert delivered_tokens * 0.7 <= record.output_tokens <= delivered_tokens * 1.5 + 1
    assert record.cost_nanos <= record.hold_nanos
    assert [(each["status"], each["outcome"]) for each in record.attempts] == [(200, "broken_mid_stream")]
    assert_billed_once(stack, alice, record)


def test_a_stream_that_said_why_it_ended_is_whole_without_its_last_event(stack: LiveStack, alice: Tenant) -> None:
    stream = read_stream(stack.base_url, alice, "[[sandbox: no_message_stop; tokens=200]]")
    assert stream.names[-2:] == ["message_delta", "message_stop"]
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.output_tokens) == ("provider", 200)
    assert_billed_once(stack, alice, record)


def test_a_broken_stream_that_reported_more_than_its_hold(stack: LiveStack, alice: Tenant) -> None:
    stream = read_stream(stack.base_url, alice, "[[sandbox: input_tokens=9000000; tokens=200; close=mid]]")
    assert stream.names[-1] == "error"
    record = wait_for_record(stack, alice)
    assert record.usage_source == PARTIAL
    assert 0 < record.cost_nanos <= record.hold_nanos
    assert_billed_once(stack, alice, record)
