"""Silence, slow readers, and a Redis or a gateway that stops for a while: streams wait, and nothing is billed twice."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from billing.admission.redis.blocking_client import redis_client
from billing.models import UsageCorrection, UsageRecord
from sandbox.journal import ABORTED_BY_CLIENT
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import (
    assert_billed_once,
    assert_closed_in_time,
    depart,
    started_attempts,
    wait_for_attempt,
    wait_for_record,
    wait_until_released,
)
from tests.gateway.scripted_upstream import COMPLETE, START, STREAM_HEAD, scripted_upstream, streamed
from tests.gateway.wire import Connection, read_stream
from tests.support.extra_gateway import ExtraGateway
from tests.support.live_stack import LiveStack, Tenant

CLOSED_WITHIN_SECONDS = 5.0
SLOW = "[[sandbox: tokens=2000; pace=20]]"
MEBIBYTE = 1024**2
FLOOD_BYTES = 100_000_000
LEAVING = pytest.mark.parametrize("leave", ["reset", "close"])
PROVIDER, ESTIMATED, PARTIAL, ORPHAN = (
    UsageRecord.Source.PROVIDER,
    UsageRecord.Source.ESTIMATED,
    UsageRecord.Source.PARTIAL,
    UsageRecord.Source.ORPHAN,
)


def test_pings_fill_silence(stack: LiveStack, impatient: ExtraGateway, alice: Tenant) -> None:
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


def test_an_upstream_that_says_nothing_for_the_client_is_silence_too(
    stack: LiveStack, impatient: ExtraGateway, alice: Tenant
) -> None:
    """Comments keep the connection to the upstream alive, and the client gets none of them."""
    with scripted_upstream() as upstream:
        sold = sell_catalog_model(stack, alice, [impatient.base_url], upstream_urls=[upstream.url])
        heartbeats: list[bytes | float] = [b": still working\n\n", 0.1] * 12
        upstream.script = [streamed(START), *heartbeats, streamed(*COMPLETE[1:]).removeprefix(STREAM_HEAD)]
        stream = read_stream(impatient.base_url, alice, model=sold.model_id)
    assert stream.names[0] == "message_start"
    assert stream.names.count("ping") >= 2
    assert stream.names[-1] == "message_stop"


def test_a_client_that_stops_reading_stops_the_stream(stack: LiveStack, alice: Tenant) -> None:
    """Nothing piles up in the gateway: the upstream waits as long as the client does."""
    assert stack.gateway is not None
    process = psutil.Process(stack.gateway.pid)
    stack.post(alice)
    before = process.memory_info().rss
    with Connection(stack.base_url, receive_buffer_bytes=4096) as connection:
        connection.send_message(alice, "[[sandbox: flood=64000000; delta=16384]]", stream=True)
        connection.read_until(b"content_block_delta")
        peak = before
        for _ in range(20):
            time.sleep(0.05)
            peak = max(peak, process.memory_info().rss)
        assert peak - before < 40 * MEBIBYTE
        left_at = depart(connection, "reset")
    stack.wait_until(lambda: len(stack.records(alice)) == 2, "both are billed")
    [record] = [record for record in stack.records(alice) if record.is_streamed]
    attempt = wait_for_attempt(stack, record)
    assert_closed_in_time(attempt, left_at)
    assert attempt.bytes < 40 * MEBIBYTE
    assert record.usage_source == ESTIMATED
    assert record.cost_nanos <= record.hold_nanos
    wait_until_released(stack, alice)


def test_a_client_that_reads_nothing_for_too_long_has_left(
    stack: LiveStack, impatient: ExtraGateway, alice: Tenant
) -> None:
    """Its upstream is closed and what was delivered is billed, although its connection stands."""
    process = psutil.Process(impatient.pid)
    before = process.memory_info().rss
    with Connection(impatient.base_url, receive_buffer_bytes=4096) as connection:
        connection.send_message(alice, "[[sandbox: flood=64000000; delta=16384]]", stream=True)
        connection.read_until(b"content_block_delta")
        stopped_reading_at = time.time()
        record = wait_for_record(stack, alice)
        attempt = wait_for_attempt(stack, record)
        assert process.memory_info().rss - before < 40 * MEBIBYTE
    assert attempt.delivered == ABORTED_BY_CLIENT
    assert attempt.ended_time is not None
    assert attempt.ended_time - stopped_reading_at > 1.0
    assert record.usage_source == ESTIMATED
    assert record.output_tokens > 0
    assert record.cost_nanos <= record.hold_nanos
    assert_billed_once(stack, alice, record)


def test_a_flood_that_is_read_leaves_no_memory_behind(stack: LiveStack, alice: Tenant) -> None:
    assert stack.gateway is not None
    process = psutil.Process(stack.gateway.pid)
    before = process.memory_info().rss
    peak = before
    with Connection(stack.base_url) as connection:
        connection.send_message(alice, f"[[sandbox: flood={FLOOD_BYTES}; delta=16384]]", stream=True)
        total = 0
        tail = b""
        while b"event: message_stop" not in tail:
            part = connection.socket.recv(MEBIBYTE)
            assert part, (total, tail)
            total += len(part)
            tail = tail[-200:] + part
            peak = max(peak, process.memory_info().rss)
    assert total > FLOOD_BYTES
    assert peak - before < 40 * MEBIBYTE
    record = wait_for_record(stack, alice)
    assert record.usage_source == UsageRecord.Source.BOUNDED  # No model of the catalog writes so much.
    wait_until_released(stack, alice)


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
    stack: LiveStack, impatient: ExtraGateway, alice: Tenant
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
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.output_tokens) == (PROVIDER, 20)
    assert_billed_once(stack, alice, record)


def test_nothing_is_served_while_redis_is_silent(stack: LiveStack, alice: Tenant) -> None:
    assert stack.post(alice).status_code == 200
    wait_until_released(stack, alice)
    before = len(stack.sandbox.journal())
    with stopped(redis_client().info("server")["process_id"]):
        for streamed in (False, True):
            started = time.monotonic()
            response = stack.post(alice, stream=streamed)
            assert time.monotonic() - started < 2
            assert response.status_code == 503
            assert response.json()["error"]["code"] == "admission_unavailable"
            assert response.headers["retry-after"] == "1"
    assert len(stack.sandbox.journal()) == before
    # What Redis still found in its socket was taken back.
    wait_until_released(stack, alice)
    assert len(stack.records(alice)) == 1


def test_a_gateway_that_sleeps_past_its_lease(stack: LiveStack, second_gateway: ExtraGateway, alice: Tenant) -> None:
    """Its hold is settled from the last checkpoint meanwhile; when it wakes it ends the stream and charges nothing."""
    with Connection(second_gateway.base_url) as connection:
        connection.send_message(alice, SLOW, stream=True, max_tokens=4_000)
        received = connection.read_until(b"content_block_delta")
        while received.count(b"content_block_delta") < 30:
            received = connection.receive()
        with stopped(second_gateway.pid):
            record = wait_for_record(stack, alice)
        woke_at = time.time()
        rest = connection.read_until(b"request_orphaned")
        assert b"event: error" in rest
    assert b"message_stop" not in rest
    assert record.usage_source == ORPHAN
    assert record.output_tokens > 0
    assert record.cost_nanos <= record.hold_nanos
    attempt = wait_for_attempt(stack, record)
    assert_closed_in_time(attempt, woke_at)
    assert_billed_once(stack, alice, record)


def test_a_reply_that_came_after_its_orphan_is_paid_by_a_correction(
    stack: LiveStack, second_gateway: ExtraGateway, alice: Tenant
) -> None:
    """The gateway stands still past its lease; what it delivers then is whole, and billed by what it used."""
    with Connection(second_gateway.base_url) as connection:
        connection.send_message(alice, "[[sandbox: delay=4000; tokens=30]]")
        stack.wait_until(lambda: started_attempts(stack, alice), "the upstream was called")
        with stopped(second_gateway.pid):
            record = wait_for_record(stack, alice)
            assert (record.usage_source, record.cost_nanos) == (ORPHAN, 0)
            assert record.upstream_cost_nanos > 0
        answer = connection.read_answer()
    assert answer.status_code == 200
    usage = answer.json()["usage"]
    stack.wait_until(lambda: UsageCorrection.objects.filter(pk=record.pk).exists(), "the truth is settled")
    correction = UsageCorrection.objects.get(pk=record.pk)
    assert (correction.input_tokens, correction.output_tokens) == (usage["input_tokens"], usage["output_tokens"])
    assert correction.usage_source == PROVIDER
    assert correction.difference_nanos == correction.cost_after_nanos > 0
    stack.wait_until_quiet()
    assert UsageRecord.objects.filter(organization_id=alice.organization.pk).count() == 1
