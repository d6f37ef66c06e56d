"""SIGTERM: a gateway takes nothing new, finishes what runs, and leaves nothing held."""

import socket
import threading
from collections.abc import Iterator

import httpx
import pytest

from billing.models import UsageRecord
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_billed_once, depart, wait_for_attempt, wait_for_record
from tests.gateway.wire import Connection
from tests.support.extra_gateway import ExtraGateway, extra_gateway
from tests.support.live_stack import HTTP, LiveStack, Tenant, body

EXIT_SECONDS = 20.0
PACED = "[[sandbox: tokens=100; delta=20; pace=60]]"  # Takes about a second and a half.
SLOWER = "[[sandbox: tokens=100; delta=20; pace=400]]"  # Longer than a gateway takes to start.


@pytest.fixture
def leaving(stack: LiveStack) -> Iterator[ExtraGateway]:
    with extra_gateway(stack, "leaving-gateway") as gateway:
        yield gateway


def terminate(gateway: ExtraGateway) -> None:
    """Send SIGTERM, and return once nobody can connect any more."""
    assert gateway.process is not None
    gateway.process.terminate()

    def is_closed() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", gateway.port)) != 0

    gateway.stack.wait_until(is_closed, "the gateway accepts nobody")


def test_a_running_stream_is_finished(stack: LiveStack, leaving: ExtraGateway, alice: Tenant) -> None:
    with Connection(leaving.base_url) as connection:
        connection.send_message(alice, PACED, stream=True)
        connection.read_until(b"content_block_delta")
        terminate(leaving)
        assert b"message_stop" not in connection.received
        received = connection.read_rest()
    assert b"event: message_stop" in received
    assert received.endswith(b"0\r\n\r\n")
    assert leaving.process is not None
    leaving.process.wait(EXIT_SECONDS)
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.output_tokens) == (UsageRecord.Source.PROVIDER, 100)
    assert_billed_once(stack, alice, record)


def test_a_successor_starts_on_the_same_folder_once_its_predecessor_has_ended(
    stack: LiveStack, leaving: ExtraGateway, alice: Tenant
) -> None:
    """While the old one finishes what runs, the folder is its own: the new one ends, and says why in one line."""
    folder = stack.folder / "leaving-gateway-var"
    successor = ExtraGateway(stack, "successor", CROSSMODEL_DATA=str(folder))
    complaint = f"Another gateway (process {leaving.pid}) runs on the spool folder {folder / 'spool'}."
    with Connection(leaving.base_url) as connection:
        connection.send_message(alice, SLOWER, stream=True)
        connection.read_until(b"content_block_delta")
        terminate(leaving)
        with pytest.raises(RuntimeError, match="successor ended"):
            successor.start()
        assert b"event: message_stop" in connection.read_rest()
    assert successor.process is not None and successor.process.wait() != 0
    assert complaint in successor.log()
    assert "Traceback" not in successor.log()
    assert leaving.process is not None
    leaving.process.wait(EXIT_SECONDS)
    try:
        successor.start()
        assert HTTP.post(successor.base_url + "/v1/messages", headers=alice.headers, json=body()).status_code == 200
    finally:
        successor.stop()


def test_a_running_whole_request_is_answered(stack: LiveStack, leaving: ExtraGateway, alice: Tenant) -> None:
    answers: list[httpx.Response] = []

    def ask() -> None:
        url = leaving.base_url + "/v1/messages"
        answers.append(HTTP.post(url, headers=alice.headers, json=body("[[sandbox: delay=1500; tokens=40]]")))

    asking = threading.Thread(target=ask)
    before = len(stack.sandbox.journal())
    asking.start()
    stack.wait_until(lambda: len(stack.sandbox.journal()) > before, "the upstream was called")
    terminate(leaving)
    asking.join()
    assert answers[0].status_code == 200
    assert leaving.process is not None
    leaving.process.wait(EXIT_SECONDS)
    assert_billed_once(stack, alice, stack.record(answers[0]))


def test_a_stream_that_is_read_on_for_its_bill_is_finished(
    stack: LiveStack, leaving: ExtraGateway, alice: Tenant
) -> None:
    """Its client has left, its upstream bills for all of it: that is read to its end before the process goes."""
    sold = sell_catalog_model(stack, alice, [leaving.base_url], bills_when_cancelled=True)
    with Connection(leaving.base_url) as connection:
        connection.send_message(alice, PACED, stream=True, model=sold.model_id)
        connection.read_until(b"content_block_delta")
        depart(connection, "reset")
    terminate(leaving)
    assert leaving.process is not None
    leaving.process.wait(EXIT_SECONDS)
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.output_tokens) == (UsageRecord.Source.PROVIDER, 100)
    assert wait_for_attempt(stack, record).is_complete
    assert_billed_once(stack, alice, record)
