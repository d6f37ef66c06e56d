"""Real clients, unmodified, each told a base URL and a key: what they make of our answers, and what that was billed."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from billing.models import FailedRequest, UsageRecord
from sandbox.replies import SENTENCE
from tests.clients.client_process import ClientProcess
from tests.clients.matrix import BROKEN_STREAM, CLIENTS, FEATURES, Client
from tests.gateway.checks import wait_until_released
from tests.support.live_stack import LiveStack, Tenant

GIVEN_TEXT = "Grüße from CrossModel"
OVERLOADED = "The model is temporarily overloaded. Please retry shortly."
UNKNOWN_MODEL = "claude-none-9"


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(client, id=client.name, marks=[pytest.mark.clients] if client.is_installed_apart else [])
        for client in CLIENTS
    ],
)
def client(request: pytest.FixtureRequest) -> Client:
    described: Client = request.param
    return described


@pytest.fixture(scope="module")
def process(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClientProcess]:
    running = ClientProcess(client, tmp_path_factory.mktemp(client.name) / "stderr")
    yield running
    running.stop()


def create(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    answer = process.ask(stack, "create", key=alice.secret, text=f"Hello! [[sandbox: say={GIVEN_TEXT}]]")
    assert_reply(answer, client)
    assert answer["text"] == GIVEN_TEXT
    assert_billed(stack, alice, answer, requests=1)


def stream(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    answer = process.ask(stack, "stream", key=alice.secret, text="Hello! [[sandbox: tokens=60]]")
    assert_reply(answer, client)
    assert answer["text"].startswith(SENTENCE)
    assert answer["pieces"] > 5
    [record] = assert_billed(stack, alice, answer, requests=1)
    assert record.is_streamed
    assert record.output_tokens == 60


def tools(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    """The model calls a tool, the client runs it, and the upstream sees what came of it."""
    name = "Bash" if client.name.startswith("claude-code") else "get_weather"
    stack.sandbox.control("echo", every=2)  # The second request is answered with its own body.
    answer = process.ask(stack, "tools", key=alice.secret, text=f"Weather? [[sandbox: tool={name}]]")
    assert_reply(answer, client)
    assert answer["tool"]["name"] == name
    assert answer["tool"]["stop_reason"] == "tool_use"
    question, call, result = json.loads(answer["text"])["messages"][-3:]
    assert (question["role"], call["role"], result["role"]) == ("user", "assistant", "user")
    [used] = [block for block in call["content"] if block["type"] == "tool_use"]
    [returned] = [block for block in result["content"] if block["type"] == "tool_result"]
    assert used["input"] == answer["tool"]["input"]
    assert returned["tool_use_id"] == used["id"]
    assert "sunny" in json.dumps(returned["content"])
    assert_billed(stack, alice, answer, requests=2)


def thinking(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    answer = process.ask(stack, "thinking", key=alice.secret, text="Think! [[sandbox: thinking=20; tokens=60]]")
    assert_reply(answer, client)
    assert answer["thinking"].startswith("The sandbox does not think")
    assert answer["text"].startswith(SENTENCE)
    [record] = assert_billed(stack, alice, answer, requests=1)
    assert record.output_tokens == 60


def broken_stream(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    """An upstream that ends early must not look like a short answer."""
    answer = process.ask(stack, "stream", key=alice.secret, text="Hello! [[sandbox: close=mid; tokens=60]]")
    assert set(answer) == {"error"}, answer
    records = settled(stack, alice)
    assert {record.usage_source for record in records} == {UsageRecord.Source.PARTIAL}


def unknown_key(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    key = alice.secret[:-1] + ("a" if alice.secret[-1] != "a" else "b")
    assert_told(process.ask(stack, "create", key=key), client, 401, "Invalid API key.")


def no_balance(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    poor = stack.make_tenant(credit_usd="0.0001")
    answer = process.ask(stack, "create", key=poor.secret)
    assert_told(answer, client, 402, "The available balance is $0.0001, and this request may cost up to $")
    assert settled(stack, poor) == []


def unknown_model(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    provider = "anthropic/" if client.name == "litellm" else ""
    answer = process.ask(stack, "create", key=alice.secret, model=provider + UNKNOWN_MODEL)
    # Claude Code says it in its own words.
    assert_told(answer, client, 404, UNKNOWN_MODEL)
    assert settled(stack, alice) == []


def rate_limit(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    slow = stack.make_tenant(key={"requests_per_minute": 1})
    assert stack.post(slow).status_code == 200
    answer = process.ask(stack, "create", key=slow.secret)
    assert_told(answer, client, 429, "The limit of 1 requests per minute is reached.")
    assert len(settled(stack, slow)) == 1


def overloaded(stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    answer = process.ask(stack, "create", key=alice.secret, text="Hello! [[sandbox: status=529]]")
    assert_told(answer, client, 503, OVERLOADED)
    assert settled(stack, alice) == []
    failures = FailedRequest.objects.filter(organization_id=alice.organization.pk)
    [failed] = stack.wait_until(lambda: list(failures.all()), "the failure is written down")
    assert [attempt["status"] for attempt in failed.attempts] == [529]


TESTS = {
    "create": create,
    "stream": stream,
    "tools": tools,
    "thinking": thinking,
    BROKEN_STREAM: broken_stream,
    "401": unknown_key,
    "402": no_balance,
    "404": unknown_model,
    "429": rate_limit,
    "529": overloaded,
}


@pytest.mark.parametrize("feature", FEATURES)
def test_client(feature: str, stack: LiveStack, process: ClientProcess, alice: Tenant, client: Client) -> None:
    """Every cell of the table in docs/api.md."""
    TESTS[feature](stack, process, alice, client)


def assert_reply(answer: dict[str, Any], client: Client) -> None:
    assert "error" not in answer, answer
    assert answer["stop_reason"] == "end_turn"
    assert answer["model"] in (client.model, client.model.removeprefix("anthropic/"))


def assert_billed(stack: LiveStack, tenant: Tenant, answer: dict[str, Any], *, requests: int) -> list[UsageRecord]:
    """Check that the client read the very tokens that were billed, and return the records."""
    records = settled(stack, tenant)
    assert len(records) == requests
    assert {record.usage_source for record in records} == {UsageRecord.Source.PROVIDER}
    assert answer["prompt_tokens"] == sum(prompt_tokens(record) for record in records)
    assert answer["output_tokens"] == sum(record.output_tokens for record in records)
    assert all(record.cost_nanos > 0 for record in records)
    return records


def assert_told(answer: dict[str, Any], client: Client, status: int, text: str) -> None:
    """Check that the client raised our error: its status and, somewhere, our words."""
    assert set(answer) == {"error"}, answer
    assert answer["error"]["status"] == client.tells.get(status, status), answer
    assert text in answer["error"]["message"], answer


def settled(stack: LiveStack, tenant: Tenant) -> list[UsageRecord]:
    """Return the tenant's records once nothing is held or unsettled any more."""
    wait_until_released(stack, tenant)
    return stack.records(tenant)


def prompt_tokens(record: UsageRecord) -> int:
    written = record.cache_write_5m_tokens + record.cache_write_1h_tokens
    return record.input_tokens + written + record.cache_read_tokens
