"""How a stream can end: what is billed, from which source, that nothing stays held, and when the upstream is closed."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest

from billing.admission.worker import redis_client
from billing.models import FailedRequest, LedgerEntry, UsageRecord
from billing.money import parse_usd
from sandbox.journal import ABORTED_BY_CLIENT, COMPLETE, JournalRecord
from tests.gateway.checks import (
    assert_nothing_is_held,
    attempts_of,
    wait_for_attempt,
    wait_for_failure,
    wait_for_record,
    wait_until_released,
)
from tests.gateway.offers import offer
from tests.gateway.wire import Connection, read_events, read_stream
from tests.support.extra_gateway import ExtraGateway
from tests.support.world import Caller, World

CLOSED_WITHIN_SECONDS = 5.0
SLOW = "[[sandbox: tokens=2000; pace=20]]"
MEBIBYTE = 1024**2
LEAVING = pytest.mark.parametrize("leave", ["reset", "close"])
PROVIDER, ESTIMATED, PARTIAL, ORPHAN = (
    UsageRecord.Source.PROVIDER,
    UsageRecord.Source.ESTIMATED,
    UsageRecord.Source.PARTIAL,
    UsageRecord.Source.ORPHAN,
)


def depart(connection: Connection, leave: str) -> float:
    """Leave, and return when."""
    if leave == "reset":
        connection.reset()
    else:
        connection.socket.close()
    return time.time()


def assert_billed_once(world: World, caller: Caller, record: UsageRecord) -> None:
    """Check that one record and one debit of its cost are all that happened to the organization."""
    figures = wait_until_released(world, caller)
    assert figures.credit_nanos == parse_usd("10") - record.cost_nanos
    assert [found.request_id for found in world.records(caller)] == [record.request_id]
    assert not FailedRequest.objects.filter(organization_id=caller.organization.pk).exists()
    debits = LedgerEntry.objects.filter(
        transaction_id=record.ledger_transaction_id, account__organization_id=caller.organization.pk
    )
    assert sum(debits.values_list("amount_nanos", flat=True)) == -record.cost_nanos


def assert_closed_in_time(attempt: JournalRecord, left_at: float) -> None:
    assert attempt.delivered == ABORTED_BY_CLIENT
    assert attempt.ended_time is not None
    assert attempt.ended_time - left_at < CLOSED_WITHIN_SECONDS


def journal_usage(attempt: JournalRecord) -> tuple[int, int]:
    assert attempt.usage is not None
    return attempt.usage["input"], attempt.usage["output"]


# --- complete --------------------------------------------------------------------------------------------------------


def test_complete(world: World, alice: Caller) -> None:
    stream = read_stream(world.base_url, alice, "[[sandbox: tokens=300]]")
    # The client has seen the end, so Redis has the usage already: there is nothing to wait for.
    assert_nothing_is_held(world, alice)
    record = wait_for_record(world, alice)
    attempt = wait_for_attempt(world, stream.response)
    assert attempt.delivered == COMPLETE
    assert record.usage_source == PROVIDER
    assert (record.input_tokens, record.output_tokens) == journal_usage(attempt)
    assert_billed_once(world, alice, record)


# --- the client leaves -----------------------------------------------------------------------------------------------


@LEAVING
def test_the_client_leaves_midway(world: World, alice: Caller, leave: str) -> None:
    """The upstream stops billing when it is cancelled: it is closed, and what was delivered is estimated."""
    with Connection(world.base_url) as connection:
        connection.send_message(alice, SLOW, stream=True, max_tokens=4_000)
        received = connection.read_until(b"content_block_delta")
        while received.count(b"content_block_delta") < 20:
            received = connection.receive()
        left_at = depart(connection, leave)
    record = wait_for_record(world, alice)
    attempt = wait_for_attempt(world, record)
    assert_closed_in_time(attempt, left_at)
    assert record.usage_source == ESTIMATED
    assert record.input_tokens == journal_usage(attempt)[0]
    seen_chars = len("".join(event.data["delta"]["text"] for event in deltas(received)))
    assert seen_chars // 6 <= record.output_tokens <= math.ceil(attempt.text_chars / 3)
    assert record.cost_nanos <= record.hold_nanos
    assert_billed_once(world, alice, record)


def deltas(received: bytes) -> list[Any]:
    """Return the text deltas of a raw answer, its chunked framing left out."""
    text = received.partition(b"\r\n\r\n")[2].decode()
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.startswith(("event:", "data:"))]
    blocks = [f"{event}\n{data}\n\n" for event, data in zip(lines[::2], lines[1::2], strict=False)]
    return [event for event in read_events("".join(blocks)) if event.name == "content_block_delta"]


@LEAVING
def test_the_client_leaves_an_upstream_that_bills_anyway(world: World, alice: Caller, leave: str) -> None:
    """Then it is read to its end without a client, and billed as complete."""
    offered = offer(world, alice, [world.base_url], bills_when_cancelled=True)
    with Connection(world.base_url) as connection:
        text = "[[sandbox: tokens=300; pace=10]]"
        connection.send_message(alice, text, stream=True, model=offered.model_id)
        connection.read_until(b"content_block_delta")
        depart(connection, leave)
    record = wait_for_record(world, alice)
    attempt = wait_for_attempt(world, record)
    assert attempt.delivered == COMPLETE
    assert record.usage_source == PROVIDER
    assert (record.input_tokens, record.output_tokens) == journal_usage(attempt)
    assert record.output_tokens == 300
    assert_billed_once(world, alice, record)


def test_an_upstream_that_bills_anyway_is_not_read_for_ever(
    world: World, impatient: ExtraGateway, alice: Caller
) -> None:
    offered = offer(world, alice, [impatient.base_url], bills_when_cancelled=True)
    with Connection(impatient.base_url) as connection:
        connection.send_message(alice, SLOW, stream=True, model=offered.model_id, max_tokens=4_000)
        connection.read_until(b"content_block_delta")
        left_at = depart(connection, "reset")
    record = wait_for_record(world, alice)
    attempt = wait_for_attempt(world, record)
    assert_closed_in_time(attempt, left_at)
    assert record.usage_source == ESTIMATED
    assert 0 < record.output_tokens <= math.ceil(attempt.text_chars / 3)
    assert_billed_once(world, alice, record)


def test_the_client_leaves_a_finished_stream_before_its_last_event(world: World, alice: Caller) -> None:
    """All was generated: it is billed by the provider's count, whenever the client left."""
    for _ in range(5):
        with Connection(world.base_url) as connection:
            connection.send_message(alice, "[[sandbox: tokens=3]]", stream=True)
            connection.read_until(b"message_start")
            connection.reset()
    world.wait_until(lambda: len(world.records(alice)) == 5, "all are billed")
    for record in world.records(alice):
        attempt = wait_for_attempt(world, record)
        if attempt.delivered == COMPLETE:
            assert (record.usage_source, record.output_tokens) == (PROVIDER, 3)
    wait_until_released(world, alice)


@LEAVING
def test_the_client_leaves_before_the_upstream_accepted(world: World, alice: Caller, leave: str) -> None:
    """An upstream that accepts shortly after is closed at once, and its input billed."""
    with Connection(world.base_url) as connection:
        connection.send_message(alice, "[[sandbox: delay=1000; pace=20; tokens=2000]]", stream=True, max_tokens=4_000)
        world.wait_until(lambda: started_attempts(world, alice), "the upstream was called")
        left_at = depart(connection, leave)
    record = wait_for_record(world, alice)
    assert_closed_in_time(wait_for_attempt(world, record), left_at)
    assert record.usage_source == ESTIMATED
    assert record.output_tokens <= 20
    assert_billed_once(world, alice, record)


def test_the_client_leaves_and_the_upstream_accepts_too_late(world: World, alice: Caller) -> None:
    """Nothing is billed when it is not known after a few seconds; the upstream is closed when it answers at last."""
    with Connection(world.base_url) as connection:
        connection.send_message(
            alice, "[[sandbox: delay=5000; first=200; pace=20; tokens=2000]]", stream=True, max_tokens=4_000
        )
        world.wait_until(lambda: started_attempts(world, alice), "the upstream was called")
        left_at = depart(connection, "reset")
    failure = wait_for_failure(world, alice)
    assert failure.error_code == "client_left"
    assert time.time() - left_at < CLOSED_WITHIN_SECONDS
    attempt = wait_for_attempt(world, failure)
    assert attempt.delivered == ABORTED_BY_CLIENT
    assert attempt.deltas <= 20
    assert wait_until_released(world, alice).credit_nanos == parse_usd("10")
    assert world.records(alice) == []


def test_no_other_upstream_is_called_for_a_client_that_left(world: World, alice: Caller) -> None:
    offered = offer(world, alice, [world.base_url], routes=2)
    world.sandbox.control("delay=500; status=529", model=offered.upstream_models[0])
    with Connection(world.base_url) as connection:
        connection.send_message(alice, stream=True, model=offered.model_id)
        world.wait_until(lambda: started_attempts(world, alice), "the upstream was called")
        connection.reset()
    failure = wait_for_failure(world, alice)
    assert failure.error_code == "client_left"
    assert [attempt["upstream"] for attempt in failure.attempts] == offered.upstreams[:1]
    assert len(attempts_of(world, failure)) == 1


@LEAVING
def test_the_client_leaves_before_the_first_byte(world: World, alice: Caller, leave: str) -> None:
    """The upstream has accepted the call and may charge for its input: that is billed, and no output."""
    with Connection(world.base_url) as connection:
        connection.send_message(alice, "[[sandbox: first=20000]]", stream=True)
        world.wait_until(lambda: started_attempts(world, alice), "the upstream was called")
        time.sleep(0.1)  # Its headers reach the gateway.
        left_at = depart(connection, leave)
    record = wait_for_record(world, alice)
    assert_closed_in_time(wait_for_attempt(world, record), left_at)
    assert (record.usage_source, record.output_tokens) == (ESTIMATED, 0)
    assert 0 < record.cost_nanos <= record.hold_nanos
    assert_billed_once(world, alice, record)


def started_attempts(world: World, caller: Caller) -> bool:
    """True once an upstream works for the organization: it holds money, and the sandbox has begun."""
    return any(attempt.delivered == "started" for attempt in world.sandbox.journal()[-3:])


@LEAVING
def test_the_client_leaves_a_whole_request(world: World, alice: Caller, leave: str) -> None:
    """Its upstream bills for all of it anyway, so it is fetched and billed like any other."""
    with Connection(world.base_url) as connection:
        connection.send_message(alice, "[[sandbox: delay=500; tokens=40]]")
        world.wait_until(lambda: started_attempts(world, alice), "the upstream was called")
        depart(connection, leave)
    record = wait_for_record(world, alice)
    assert (record.usage_source, record.output_tokens) == (PROVIDER, 40)
    assert wait_for_attempt(world, record).delivered == COMPLETE
    assert_billed_once(world, alice, record)


def test_the_client_leaves_a_whole_request_that_never_ends(
    world: World, impatient: ExtraGateway, alice: Caller
) -> None:
    with Connection(impatient.base_url) as connection:
        connection.send_message(alice, "[[sandbox: tokens=1000; drip=20; pace=50]]")
        world.wait_until(lambda: started_attempts(world, alice), "the upstream was called")
        time.sleep(0.1)
        left_at = depart(connection, "reset")
    record = wait_for_record(world, alice)
    assert (record.usage_source, record.output_tokens) == (ESTIMATED, 0)
    assert_closed_in_time(wait_for_attempt(world, record), left_at)
    assert_billed_once(world, alice, record)


def test_the_client_leaves_while_it_sends(world: World, alice: Caller) -> None:
    before = len(world.sandbox.journal())
    with Connection(world.base_url) as connection:
        headers = [*alice.headers.items(), ("content-length", "1000")]
        connection.send("POST", "/v1/messages", headers)
        connection.socket.sendall(b'{"model": "anth')
        connection.reset()
    assert world.post(alice).status_code == 200
    assert len(world.sandbox.journal()) == before + 1
    wait_for_record(world, alice)


def test_many_clients_that_leave_at_every_moment(world: World, alice: Caller) -> None:
    """Wherever in its life a request is left, it ends exactly once: billed or released."""
    count = 40
    for number in range(count):
        with Connection(world.base_url) as connection:
            connection.send_message(alice, "[[sandbox: tokens=20; pace=1]]", stream=bool(number % 2))
            time.sleep(number * 0.0007)
            connection.reset()
    # One that was read to its end by the gateway after its client had left counts like any other.
    figures = wait_until_released(world, alice)
    failed = FailedRequest.objects.filter(organization_id=alice.organization.pk).count()
    records = world.records(alice)
    assert len(records) + failed <= count
    assert figures.credit_nanos == parse_usd("10") - sum(record.cost_nanos for record in records)
    for record in records:
        assert len(attempts_of(world, record)) == 1


# --- the upstream breaks ---------------------------------------------------------------------------------------------

BREAKS = {
    "reset=mid; tokens=200; pace=1": ("api_error", "upstream_broken"),
    "close=mid; tokens=200": ("api_error", "upstream_protocol_error"),
    "error=mid; tokens=200": ("overloaded_error", "upstream_overloaded"),
    "malformed_sse; tokens=200": ("api_error", "upstream_protocol_error"),
    "no_message_stop; tokens=200": ("api_error", "upstream_protocol_error"),
    "out_of_order_index; tokens=200": ("api_error", "upstream_protocol_error"),
    "huge_event=9000000": ("api_error", "upstream_protocol_error"),
    "hang=mid; tokens=200": ("api_error", "upstream_timeout"),
    "tokens=1000; pace=50": ("api_error", "upstream_timeout"),
}


@pytest.mark.parametrize(("directives", "expected"), BREAKS.items(), ids=BREAKS.keys())
def test_the_upstream_breaks_midway(
    world: World, impatient: ExtraGateway, alice: Caller, directives: str, expected: tuple[str, str]
) -> None:
    """The client is told by an error event, whatever the manner; what was delivered is billed, within the hold."""
    stream = read_stream(impatient.base_url, alice, f"[[sandbox: {directives}]]")
    assert stream.response.status_code == 200
    assert stream.names[0] == "message_start"
    assert stream.names[-1] == "error"
    assert "message_stop" not in stream.names
    assert "message_delta" not in stream.names
    error = stream.only("error")
    assert (error["error"]["type"], error["error"]["code"]) == expected
    assert error["request_id"] == stream.response.headers["request-id"]
    assert set(error) == {"type", "error", "request_id"}
    record = wait_for_record(world, alice)
    assert record.usage_source == PARTIAL
    attempt = wait_for_attempt(world, record)
    assert record.input_tokens == journal_usage(attempt)[0]
    delivered_tokens = len(stream.reply_text) / 4
    assert delivered_tokens * 0.7 <= record.output_tokens <= delivered_tokens * 1.5 + 1
    assert record.cost_nanos <= record.hold_nanos
    assert [(each["status"], each["outcome"]) for each in record.attempts] == [(200, "broken_mid_stream")]
    assert_billed_once(world, alice, record)


def test_a_broken_stream_that_reported_more_than_its_hold(world: World, alice: Caller) -> None:
    stream = read_stream(world.base_url, alice, "[[sandbox: input_tokens=9000000; tokens=200; close=mid]]")
    assert stream.names[-1] == "error"
    record = wait_for_record(world, alice)
    assert record.usage_source == PARTIAL
    assert 0 < record.cost_nanos <= record.hold_nanos
    assert_billed_once(world, alice, record)


# --- silence, slow readers -------------------------------------------------------------------------------------------


def test_pings_fill_silence(world: World, impatient: ExtraGateway, alice: Caller) -> None:
    stream = read_stream(impatient.base_url, alice, "[[sandbox: first=700; tokens=20]]")
    assert stream.names[:2] == ["ping", "ping"]
    assert stream.names[-1] == "message_stop"
    for event in stream.events:
        if event.name == "ping":
            assert event.data == {"type": "ping"}
    paced = read_stream(impatient.base_url, alice, "[[sandbox: tokens=10; delta=20; pace=500]]")
    names = paced.names
    assert "ping" in names[names.index("content_block_delta") : len(names) - names[::-1].index("content_block_delta")]
    assert paced.names[-1] == "message_stop"


def test_a_client_that_stops_reading_stops_the_stream(world: World, alice: Caller) -> None:
    """Nothing piles up in the gateway: the upstream waits as long as the client does."""
    assert world.gateway is not None
    process = psutil.Process(world.gateway.pid)
    world.post(alice)
    before = process.memory_info().rss
    with Connection(world.base_url, receive_buffer_bytes=4096) as connection:
        connection.send_message(alice, "[[sandbox: flood=64000000; delta=16384]]", stream=True)
        connection.read_until(b"content_block_delta")
        peak = before
        for _ in range(20):
            time.sleep(0.05)
            peak = max(peak, process.memory_info().rss)
        assert peak - before < 40 * MEBIBYTE
        left_at = depart(connection, "reset")
    world.wait_until(lambda: len(world.records(alice)) == 2, "both are billed")
    [record] = [record for record in world.records(alice) if record.is_streamed]
    attempt = wait_for_attempt(world, record)
    assert_closed_in_time(attempt, left_at)
    assert attempt.bytes < 40 * MEBIBYTE
    assert record.usage_source == ESTIMATED
    assert record.cost_nanos <= record.hold_nanos
    wait_until_released(world, alice)


def test_a_flood_that_is_read_leaves_no_memory_behind(world: World, alice: Caller) -> None:
    assert world.gateway is not None
    process = psutil.Process(world.gateway.pid)
    before = process.memory_info().rss
    peak = before
    with Connection(world.base_url) as connection:
        connection.send_message(alice, "[[sandbox: flood=30000000; delta=16384]]", stream=True)
        total = 0
        tail = b""
        while b"event: message_stop" not in tail:
            part = connection.socket.recv(MEBIBYTE)
            assert part
            total += len(part)
            tail = tail[-200:] + part
            peak = max(peak, process.memory_info().rss)
    assert total > 30_000_000
    assert peak - before < 40 * MEBIBYTE
    record = wait_for_record(world, alice)
    assert record.usage_source == PROVIDER
    wait_until_released(world, alice)


# --- Redis and the gateway stop for a while --------------------------------------------------------------------------


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process in its tracks meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_the_last_events_wait_for_settlement_but_not_for_ever(
    world: World, impatient: ExtraGateway, alice: Caller
) -> None:
    """Redis is silent at the end: the end is held back by the bound of 0.5 s, then sent; billed once all the same."""
    redis_pid = redis_client().info("server")["process_id"]
    with Connection(impatient.base_url) as connection:
        connection.send_message(alice, "[[sandbox: tokens=20; delta=20; pace=100]]", stream=True)
        connection.read_until(b"content_block_delta")
        with stopped(redis_pid):
            connection.read_until(b"content_block_stop")
            whole_at = time.monotonic()
            connection.read_until(b"message_stop")
            waited = time.monotonic() - whole_at
    assert 0.4 <= waited <= 2.5
    record = wait_for_record(world, alice)
    assert (record.usage_source, record.output_tokens) == (PROVIDER, 20)
    assert_billed_once(world, alice, record)


def test_nothing_is_served_while_redis_is_silent(world: World, alice: Caller) -> None:
    assert world.post(alice).status_code == 200
    wait_until_released(world, alice)
    before = len(world.sandbox.journal())
    with stopped(redis_client().info("server")["process_id"]):
        for streamed in (False, True):
            started = time.monotonic()
            response = world.post(alice, stream=streamed)
            assert time.monotonic() - started < 2
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "admission_unavailable"
            assert response.headers["retry-after"] == "1"
    assert len(world.sandbox.journal()) == before
    # What Redis still found in its socket was taken back.
    wait_until_released(world, alice)
    assert len(world.records(alice)) == 1


def test_a_gateway_that_sleeps_past_its_lease(world: World, second_gateway: ExtraGateway, alice: Caller) -> None:
    """Its hold is settled from the last checkpoint meanwhile; when it wakes it ends the stream and charges nothing."""
    with Connection(second_gateway.base_url) as connection:
        connection.send_message(alice, SLOW, stream=True, max_tokens=4_000)
        received = connection.read_until(b"content_block_delta")
        while received.count(b"content_block_delta") < 30:
            received = connection.receive()
        with stopped(second_gateway.pid):
            record = wait_for_record(world, alice)
        woke_at = time.time()
        rest = connection.read_until(b"request_orphaned")
        assert b"event: error" in rest
    assert b"message_stop" not in rest
    assert record.usage_source == ORPHAN
    assert record.output_tokens > 0
    assert record.cost_nanos <= record.hold_nanos
    attempt = wait_for_attempt(world, record)
    assert_closed_in_time(attempt, woke_at)
    assert_billed_once(world, alice, record)


def test_an_orphan_without_a_checkpoint_costs_nothing(
    world: World, second_gateway: ExtraGateway, alice: Caller
) -> None:
    with Connection(second_gateway.base_url) as connection:
        connection.send_message(alice, "[[sandbox: delay=4000; tokens=30]]")
        world.wait_until(lambda: started_attempts(world, alice), "the upstream was called")
        with stopped(second_gateway.pid):
            record = wait_for_record(world, alice)
        answer = connection.read_answer()
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "request_orphaned"
    assert (record.usage_source, record.cost_nanos) == (ORPHAN, 0)
    assert record.upstream_cost_nanos > 0
    assert_billed_once(world, alice, record)
