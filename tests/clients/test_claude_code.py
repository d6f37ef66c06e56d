"""What is particular about Claude Code: how it gives a key, when it gives up, how it heals, what it thinks it spent."""

import time
from collections.abc import Iterator
from decimal import Decimal

import pytest

from billing.money import NANOS_PER_USD
from gateway.metering.request_log import FLUSH_SECONDS
from tests.clients.client_process import ClientProcess
from tests.clients.matrix import CLIENTS
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import wait_until_released
from tests.support.live_stack import LiveStack, Tenant

pytestmark = pytest.mark.clients

MOST_TRIES = 2  # Once streaming, once not.
# Formed like a key, but nobody's.
WRONG_KEY = "cm-AAAAAAAA-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@pytest.fixture(scope="module", params=["claude-code", "claude-code-node-20"])
def claude(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientProcess]:
    [client] = [client for client in CLIENTS if client.name == request.param]
    running = ClientProcess(client, tmp_path_factory.mktemp("claude") / "stderr")
    yield running
    running.stop()


def test_it_spends_what_it_thinks_it_spends(stack: LiveStack, alice: Tenant, claude: ClientProcess) -> None:
    """Its own price list is the provider's, and the catalog that ships sells at those prices."""
    answer = claude.ask(stack, "create", key=alice.secret)
    wait_until_released(stack, alice)
    [record] = stack.records(alice)
    assert record.cache_write_5m_tokens + record.cache_read_tokens > 10_000
    assert round(Decimal(answer["cost_usd"]) * NANOS_PER_USD) == record.cost_nanos


@pytest.mark.parametrize("auth", ["api_key", "auth_token"])
def test_either_variable_holds_the_key(stack: LiveStack, alice: Tenant, claude: ClientProcess, auth: str) -> None:
    assert "error" not in claude.ask(stack, "create", key=alice.secret, auth=auth)


def test_of_two_different_keys_the_api_key_wins(stack: LiveStack, alice: Tenant, claude: ClientProcess) -> None:
    other = {"ANTHROPIC_AUTH_TOKEN": WRONG_KEY}
    answer = claude.ask(stack, "create", key=alice.secret, auth="api_key", environment=other)
    assert "error" not in answer, answer
    other = {"ANTHROPIC_API_KEY": WRONG_KEY}
    answer = claude.ask(stack, "create", key=alice.secret, auth="auth_token", environment=other)
    assert answer["error"]["status"] == 401


def test_it_heals_from_what_is_not_supported(stack: LiveStack, alice: Tenant, claude: ClientProcess) -> None:
    """With models that it does not know it puts a system message among the messages, is refused, and goes on."""
    sold = sell_catalog_model(stack, alice, [stack.base_url], capabilities=("tools", "thinking"))
    before = statuses(stack)
    answer = claude.ask(stack, "create", key=alice.secret, model=sold.model_id)
    assert answer["stop_reason"] == "end_turn", answer
    assert statuses(stack)[len(before) :] == [400, 200]
    wait_until_released(stack, alice)
    assert len(stack.records(alice)) == 1


def test_its_system_messages_pass_to_the_models_of_today(
    stack: LiveStack, alice: Tenant, claude: ClientProcess
) -> None:
    before = statuses(stack)
    answer = claude.ask(stack, "create", key=alice.secret, model="claude-opus-5-5[1m]")
    assert answer["stop_reason"] == "end_turn", answer
    assert statuses(stack)[len(before) :] == [200]


def test_a_model_that_no_upstream_has_ends_it_soon(stack: LiveStack, alice: Tenant, claude: ClientProcess) -> None:
    """Without `x-should-retry: false` it would ask for more than a minute."""
    sold = sell_catalog_model(stack, alice, [stack.base_url])
    stack.sandbox.control("status=404", times=20, model=sold.upstream_models[0])
    before = statuses(stack)
    answer = claude.ask(stack, "create", key=alice.secret, model=sold.model_id, retries=10)
    assert answer["error"], answer
    assert len(statuses(stack)) - len(before) <= MOST_TRIES


def test_a_refused_key_is_not_tried_again(stack: LiveStack, alice: Tenant, claude: ClientProcess) -> None:
    """Without `x-should-retry: false` it would ask eleven times over three minutes."""
    before = statuses(stack)
    answer = claude.ask(stack, "create", key=WRONG_KEY, retries=10)
    assert answer["error"]["status"] == 401
    assert statuses(stack)[len(before) :] == [401]


def test_an_overloaded_model_is_tried_again_and_billed_once(
    stack: LiveStack, alice: Tenant, claude: ClientProcess
) -> None:
    stack.sandbox.control("status=529", times=2)
    before = statuses(stack)
    answer = claude.ask(stack, "create", key=alice.secret, retries=10)
    assert answer["stop_reason"] == "end_turn", answer
    assert statuses(stack)[len(before) :] == [503, 503, 200]
    wait_until_released(stack, alice)
    assert len(stack.records(alice)) == 1


def test_a_rate_limit_is_waited_for(stack: LiveStack, claude: ClientProcess) -> None:
    brisk = stack.make_tenant(key={"requests_per_minute": 4})
    for _ in range(4):
        assert stack.post(brisk).status_code == 200
    before = statuses(stack)
    answer = claude.ask(stack, "create", key=brisk.secret, retries=10)
    assert answer["stop_reason"] == "end_turn", answer
    assert statuses(stack)[len(before) :] == [429, 200]
    wait_until_released(stack, brisk)
    assert len(stack.records(brisk)) == 5


def statuses(stack: LiveStack) -> list[int]:
    """Return how the gateway answered each POST /v1/messages so far, by its log: lines leave a moment after answers."""
    time.sleep(10 * FLUSH_SECONDS)
    lines = (stack.folder / "uvicorn.log").read_text().splitlines()
    return [int(line.split()[2]) for line in lines if line.startswith("POST /v1/messages ")]
