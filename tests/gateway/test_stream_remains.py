"""What is left of streams: no object of one that ended, no buffer of a client that reads nothing; and a forced stop."""

import asyncio
import json
from pathlib import Path

import pytest

from billing.admission.blocking import read_admission_state
from billing.models import FailedRequest, UsageRecord
from billing.money import parse_usd
from tests.gateway.checks import wait_for_record, wait_until_released
from tests.gateway.wire import Connection
from tests.support.extra_gateway import extra_gateway
from tests.support.live_stack import HTTP, LiveStack, Tenant, body

STREAMS, WARM_UP_STREAMS, AT_ONCE = 1_000, 100, 50
MAX_OBJECTS_PER_STREAM = 3.0  # One that stays behind brings some twenty with it.
SHORT = "[[sandbox: tokens=10]]"
ENDLESS = "[[sandbox: tokens=4000; delta=10; pace=100]]"
FLOOD = "[[sandbox: tokens=60000; delta=2]]"  # More than is buffered anywhere.
STOP_SECONDS = "1"


async def serve(port: int, tenant: Tenant, count: int) -> None:
    """Let so many streams be served, each on a connection of its own; every second client leaves in the middle."""
    left = iter(range(count))

    async def one_after_another() -> None:
        for number in left:
            leaves = number % 2
            fields = json.dumps(body(ENDLESS if leaves else SHORT, stream=True)).encode()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {tenant.secret}\r\nconnection: close\r\n"
            writer.write(f"{head}content-length: {len(fields)}\r\n\r\n".encode() + fields)
            await (reader.readuntil(b"content_block_delta") if leaves else reader.read())
            writer.close()
            await writer.wait_closed()

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))


@pytest.mark.long
def test_streams_that_have_ended_leave_nothing_for_the_collector(stack: LiveStack) -> None:
    tenant = stack.make_tenant(credit_usd="10000", requests_per_minute=100_000)
    with extra_gateway(stack, "counted", application="tests.support.counted_gateway:application") as gateway:

        def objects() -> int:
            return int(HTTP.get(gateway.base_url + "/objects").text)

        asyncio.run(serve(gateway.port, tenant, WARM_UP_STREAMS))
        before = objects()
        asyncio.run(serve(gateway.port, tenant, STREAMS))
        stack.wait_until(
            lambda: objects() - before < STREAMS * MAX_OBJECTS_PER_STREAM, "ended streams leave no objects behind"
        )


def open_requests(tenant: Tenant) -> int:
    state = read_admission_state(tenant.organization.pk)
    return state.open_requests if state else 0


def test_a_forced_stop_tells_clients_and_bills_what_they_got(stack: LiveStack, alice: Tenant) -> None:
    arguments = ("--timeout-graceful-shutdown", STOP_SECONDS)
    with extra_gateway(stack, "stopped", arguments=arguments) as gateway, Connection(gateway.base_url) as streaming:
        streaming.send_message(alice, ENDLESS, stream=True)
        streaming.read_until(b"content_block_delta")
        with Connection(gateway.base_url) as whole:
            whole.send_message(alice, "[[sandbox: delay=8000]]")
            stack.wait_until(lambda: open_requests(alice) == 2, "both run")
            assert gateway.process is not None
            gateway.process.terminate()
            told = whole.read_rest()
        received = streaming.read_rest()
        gateway.process.wait(20)
        log = gateway.log()
    assert received.endswith(b"0\r\n\r\n")
    [error] = [line for line in received.decode().split("\n") if '"error"' in line and line.startswith("data:")]
    assert json.loads(error.removeprefix("data:"))["error"]["code"] == "gateway_stopping"
    assert told.startswith(b"HTTP/1.1 503") and b"gateway_stopping" in told
    assert "Traceback" not in log
    record = wait_for_record(stack, alice)
    assert record.usage_source == UsageRecord.Source.PARTIAL
    assert 0 < record.output_tokens < 4000
    assert wait_until_released(stack, alice).credit_nanos == parse_usd("10") - record.cost_nanos
    assert [failed.error_code for failed in FailedRequest.objects.filter(organization_id=alice.organization.pk)] == [
        "gateway_stopping"
    ]


@pytest.mark.long
def test_a_client_that_reads_nothing_is_reset(stack: LiveStack, alice: Tenant) -> None:
    """Closed in order its connection would stay in the kernel, with all that is buffered, until somebody reads it."""
    with (
        extra_gateway(stack, "stalling", CROSSMODEL_CLIENT_STALL_SECONDS="1") as gateway,
        Connection(gateway.base_url, receive_buffer_bytes=4096) as connection,
    ):
        connection.send_message(alice, FLOOD, stream=True, max_tokens=60_000)
        connection.read_until(b"content_block_delta")
        ports = connection.socket.getpeername()[1], connection.socket.getsockname()[1]
        wait_for_record(stack, alice)
        stack.wait_until(lambda: not sockets_between(*ports), "the kernel keeps nothing for it", seconds=5)


def sockets_between(port: int, other_port: int) -> list[list[str]]:
    """Return what the kernel says of the sockets at a port whose other end is at another: one alone names no
    connection, since the ports of clients are used again with every server.
    """
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [line for line in lines if line[1].endswith(f":{port:04X}") and line[2].endswith(f":{other_port:04X}")]
