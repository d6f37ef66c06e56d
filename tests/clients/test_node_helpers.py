"""The helpers of Anthropic's TypeScript SDK, with upstreams of both protocols. Those of Python: test_sdk_helpers.py."""

from collections.abc import Iterator

import pytest

from billing.models import Upstream
from tests.clients.client_process import ClientProcess
from tests.clients.matrix import CLIENTS
from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.support.live_stack import LiveStack, Tenant

pytestmark = pytest.mark.clients

CALL = "What is the weather? [[sandbox: tool=get_weather]]"


@pytest.fixture(scope="module", params=["anthropic-node-1", "anthropic-node-0"])
def sdk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientProcess]:
    [client] = [client for client in CLIENTS if client.name == request.param]
    running = ClientProcess(client, tmp_path_factory.mktemp("node") / "stderr")
    yield running
    running.stop()


@pytest.fixture(params=[Upstream.Protocol.MESSAGES, Upstream.Protocol.CHAT_COMPLETIONS], ids=["messages", "chat"])
def sold(stack: LiveStack, alice: Tenant, request: pytest.FixtureRequest) -> SoldModel:
    return sell_catalog_model(stack, alice, [stack.base_url], protocol=request.param)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_tool_runner_goes_on_without_a_thread(
    stack: LiveStack, alice: Tenant, sdk: ClientProcess, sold: SoldModel, stream: bool
) -> None:
    answer = sdk.ask(stack, "runner", key=alice.secret, text=CALL, model=sold.model_id, stream=stream)
    assert answer.get("stop_reasons") == ["tool_use", "end_turn"], answer
    stack.wait_until(lambda: len(stack.records(alice)) == 2, "both turns are settled, and nothing else")


def test_structured_outputs(stack: LiveStack, alice: Tenant, sdk: ClientProcess, sold: SoldModel) -> None:
    answer = sdk.ask(stack, "parse", key=alice.secret, text="Where?", model=sold.model_id)
    assert answer.get("cities") == ["string", "string"], answer
