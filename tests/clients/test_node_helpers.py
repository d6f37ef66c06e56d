"""The helpers of Anthropic's TypeScript SDK, with upstreams of both protocols. Those of Python: test_sdk_helpers.py."""

from collections.abc import Iterator

import pytest

from billing.models import Upstream
from tests.clients.client_process import ClientProcess
from tests.clients.matrix import CLIENTS
from tests.gateway.offers import Offer, offer
from tests.support.world import Caller, World

pytestmark = pytest.mark.clients

CALL = "What is the weather? [[sandbox: tool=get_weather]]"


@pytest.fixture(scope="module", params=["anthropic-node-1", "anthropic-node-0"])
def sdk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientProcess]:
    [client] = [client for client in CLIENTS if client.name == request.param]
    running = ClientProcess(client, tmp_path_factory.mktemp("node") / "stderr")
    yield running
    running.stop()


@pytest.fixture(params=[Upstream.Protocol.MESSAGES, Upstream.Protocol.CHAT_COMPLETIONS], ids=["messages", "chat"])
def sold(world: World, alice: Caller, request: pytest.FixtureRequest) -> Offer:
    return offer(world, alice, [world.base_url], protocol=request.param)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_tool_runner_goes_on_without_a_thread(
    world: World, alice: Caller, sdk: ClientProcess, sold: Offer, stream: bool
) -> None:
    answer = sdk.ask(world, "runner", key=alice.secret, text=CALL, model=sold.model_id, stream=stream)
    assert answer.get("stop_reasons") == ["tool_use", "end_turn"], answer
    world.wait_until(lambda: len(world.records(alice)) == 2, "both turns are settled, and nothing else")


def test_structured_outputs(world: World, alice: Caller, sdk: ClientProcess, sold: Offer) -> None:
    answer = sdk.ask(world, "parse", key=alice.secret, text="Where?", model=sold.model_id)
    assert answer.get("cities") == ["string", "string"], answer
