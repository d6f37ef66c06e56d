"""What is particular about Claude Code: how it gives a key, when it gives up, how it heals, what it thinks it spent."""

from collections.abc import Iterator
from decimal import Decimal

import pytest

from billing.money import NANOS_PER_USD
from tests.clients.client_process import ClientProcess
from tests.clients.matrix import CLIENTS
from tests.gateway.checks import wait_until_released
from tests.gateway.offers import offer
from tests.support.world import Caller, World

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


def test_it_spends_what_it_thinks_it_spends(world: World, alice: Caller, claude: ClientProcess) -> None:
    """Its own price list is the provider's, and the catalog that ships sells at those prices."""
    answer = claude.ask(world, "create", key=alice.secret)
    wait_until_released(world, alice)
    [record] = world.records(alice)
    assert record.cache_write_5m_tokens + record.cache_read_tokens > 10_000
    assert round(Decimal(answer["cost_usd"]) * NANOS_PER_USD) == record.cost_nanos


@pytest.mark.parametrize("auth", ["api_key", "auth_token"])
def test_either_variable_holds_the_key(world: World, alice: Caller, claude: ClientProcess, auth: str) -> None:
    assert "error" not in claude.ask(world, "create", key=alice.secret, auth=auth)


def test_of_two_different_keys_the_api_key_wins(world: World, alice: Caller, claude: ClientProcess) -> None:
    other = {"ANTHROPIC_AUTH_TOKEN": WRONG_KEY}
    answer = claude.ask(world, "create", key=alice.secret, auth="api_key", environment=other)
    assert "error" not in answer, answer
    other = {"ANTHROPIC_API_KEY": WRONG_KEY}
    answer = claude.ask(world, "create", key=alice.secret, auth="auth_token", environment=other)
    assert answer["error"]["status"] == 401


def test_it_heals_from_what_is_not_supported(world: World, alice: Caller, claude: ClientProcess) -> None:
    """With models that it does not know it puts a system message among the messages, is refused, and goes on."""
    sold = offer(world, alice, [world.base_url], capabilities=("tools", "thinking"))
    before = statuses(world)
    answer = claude.ask(world, "create", key=alice.secret, model=sold.model_id)
    assert answer["stop_reason"] == "end_turn", answer
    assert statuses(world)[len(before) :] == [400, 200]
    wait_until_released(world, alice)
    assert len(world.records(alice)) == 1


def test_its_system_messages_pass_to_the_models_of_today(world: World, alice: Caller, claude: ClientProcess) -> None:
    before = statuses(world)
    answer = claude.ask(world, "create", key=alice.secret, model="claude-opus-5-5[1m]")
    assert answer["stop_reason"] == "end_turn", answer
    assert statuses(world)[len(before) :] == [200]


def test_a_model_that_no_upstream_has_ends_it_soon(world: World, alice: Caller, claude: ClientProcess) -> None:
    """Without `x-should-retry: false` it would ask for more than a minute."""
    sold = offer(world, alice, [world.base_url])
    world.sandbox.control("status=404", times=20, model=sold.upstream_models[0])
    before = statuses(world)
    answer = claude.ask(world, "create", key=alice.secret, model=sold.model_id, retries=10)
    assert answer["error"], answer
    assert len(statuses(world)) - len(before) <= MOST_TRIES


def test_a_refused_key_is_not_tried_again(world: World, alice: Caller, claude: ClientProcess) -> None:
    """Without `x-should-retry: false` it would ask eleven times over three minutes."""
    before = statuses(world)
    answer = claude.ask(world, "create", key=WRONG_KEY, retries=10)
    assert answer["error"]["status"] == 401
    assert statuses(world)[len(before) :] == [401]


def test_an_overloaded_model_is_tried_again_and_billed_once(world: World, alice: Caller, claude: ClientProcess) -> None:
    world.sandbox.control("status=529", times=2)
    before = statuses(world)
    answer = claude.ask(world, "create", key=alice.secret, retries=10)
    assert answer["stop_reason"] == "end_turn", answer
    assert statuses(world)[len(before) :] == [503, 503, 200]
    wait_until_released(world, alice)
    assert len(world.records(alice)) == 1


def test_a_rate_limit_is_waited_for(world: World, claude: ClientProcess) -> None:
    brisk = world.caller(key={"requests_per_minute": 4})
    for _ in range(4):
        assert world.post(brisk).status_code == 200
    before = statuses(world)
    answer = claude.ask(world, "create", key=brisk.secret, retries=10)
    assert answer["stop_reason"] == "end_turn", answer
    assert statuses(world)[len(before) :] == [429, 200]
    wait_until_released(world, brisk)
    assert len(world.records(brisk)) == 5


def statuses(world: World) -> list[int]:
    """Return how the gateway answered each POST /v1/messages so far, by its log."""
    lines = (world.folder / "uvicorn.log").read_text().splitlines()
    return [int(line.split()[2]) for line in lines if line.startswith("POST /v1/messages ")]
