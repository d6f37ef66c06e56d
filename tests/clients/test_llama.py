"""A real upstream: llama.cpp's own server behind the gateway, by each of the protocols that it speaks.

What it says is random, but always the same; its counts are its own, and they are what is billed.
"""

import subprocess
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest

from billing.models import UsageRecord
from crossmodel_site.embedded.ports import find_free_port
from gateway.protocol.messages.count_tokens import ESTIMATE_HEADER
from tests.clients.catalog import also_selling
from tests.clients.install import environment_python
from tests.clients.matrix import DRIVERS, HERE
from tests.gateway.checks import wait_until_released
from tests.support.live_stack import LiveStack, Tenant

pytestmark = pytest.mark.clients

OUTPUT_TOKENS = 12
QUESTION = "What flows through the quiet garden?"
LANGUAGE_MODELS = pytest.mark.parametrize("language_model", ["llama/by-messages", "llama/by-chat-completions"])
# Of tests/clients/llama.toml: nano-dollars per token.
INPUT_NANOS, OUTPUT_NANOS, CACHE_READ_NANOS = 1_000, 2_000, 100


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    errors = tmp_path_factory.mktemp("llama") / "stderr"
    command = [str(environment_python("llama")), str(DRIVERS / "llama_server.py"), str(find_free_port())]
    with errors.open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdin and process.stdout
    try:
        url, model_bytes = (process.stdout.readline() or "- 0").split()
        assert url.startswith("http://"), errors.read_text()
        assert int(model_bytes) < 500_000
        yield url
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture(scope="module")
def catalog_with_llama(
    _standing_stack: LiveStack, server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    entries = (HERE / "llama.toml").read_text().replace("${LLAMA_URL}", server_url)
    with also_selling(_standing_stack, entries, tmp_path_factory.mktemp("catalog")):
        yield


@pytest.fixture
def llama(stack: LiveStack, server_url: str, catalog_with_llama: None, alice: Tenant) -> str:
    """The server's own address, once the gateway sells what it serves."""
    stack.wait_until(
        lambda: stack.get(alice, "/v1/models/llama/by-chat-completions").status_code == 200, "the gateway sells it"
    )
    return server_url


@LANGUAGE_MODELS
def test_a_whole_reply(stack: LiveStack, alice: Tenant, llama: str, language_model: str) -> None:
    expected = ask_llama(llama)
    reply = sdk(stack, alice).messages.create(**question(language_model))
    assert read_text(reply) == read_text(expected)
    assert (reply.model, reply.stop_reason) == (language_model, "max_tokens")
    assert reply.id.startswith("msg_")
    record = assert_billed(stack, alice, reply, expected)
    assert not record.is_streamed


@LANGUAGE_MODELS
def test_a_stream(stack: LiveStack, alice: Tenant, llama: str, language_model: str) -> None:
    expected = ask_llama(llama)
    with sdk(stack, alice).messages.stream(**question(language_model)) as stream:
        pieces = list(stream.text_stream)
        reply = stream.get_final_message()
    assert "".join(pieces) == read_text(reply) == read_text(expected)
    assert len(pieces) == OUTPUT_TOKENS
    assert (reply.model, reply.stop_reason) == (language_model, "max_tokens")
    record = assert_billed(stack, alice, reply, expected)
    assert record.is_streamed


@LANGUAGE_MODELS
def test_its_prompt_cache_is_billed_as_such(stack: LiveStack, alice: Tenant, llama: str, language_model: str) -> None:
    """The same again is read from the cache but for a token or so: cached tokens are not billed as input too."""
    client = sdk(stack, alice)
    client.messages.create(**question(language_model))
    client.messages.create(**question(language_model))
    wait_until_released(stack, alice)
    first, second = sorted(stack.records(alice), key=lambda record: record.admitted_at)
    prompt_tokens = first.input_tokens + first.cache_read_tokens
    assert second.input_tokens + second.cache_read_tokens == prompt_tokens
    assert second.cache_read_tokens > second.input_tokens > 0


@LANGUAGE_MODELS
def test_too_long_a_prompt_is_refused_in_words_that_clients_know(
    stack: LiveStack, alice: Tenant, llama: str, language_model: str
) -> None:
    with pytest.raises(anthropic.BadRequestError, match="prompt is too long"):
        sdk(stack, alice).messages.create(**question(language_model, "north " * 5_000))
    wait_until_released(stack, alice)
    assert stack.records(alice) == []


def test_it_counts_tokens_itself_where_it_can(stack: LiveStack, alice: Tenant, llama: str) -> None:
    counted = count_tokens(stack, alice, "llama/by-messages")
    assert counted.json() == {"input_tokens": prompt_tokens(ask_llama(llama))}
    assert ESTIMATE_HEADER not in counted.headers
    # Chat Completions has no such call, so the gateway estimates, and says so.
    estimated = count_tokens(stack, alice, "llama/by-chat-completions")
    assert estimated.headers[ESTIMATE_HEADER] == "estimated"
    assert estimated.json()["input_tokens"] >= len(QUESTION) / 2


def count_tokens(stack: LiveStack, tenant: Tenant, language_model: str) -> httpx.Response:
    asked = question(language_model)
    del asked["max_tokens"]
    response = httpx.post(stack.base_url + "/v1/messages/count_tokens", headers=tenant.headers, json=asked, timeout=30)
    return response.raise_for_status()


def sdk(stack: LiveStack, tenant: Tenant) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=stack.base_url, api_key=tenant.secret, max_retries=0)


def question(language_model: str, text: str = QUESTION) -> Any:
    return {"model": language_model, "max_tokens": OUTPUT_TOKENS, "messages": [{"role": "user", "content": text}]}


def ask_llama(url: str) -> anthropic.types.Message:
    """Return what the server itself answers: its text and its counts."""
    response = httpx.post(url + "/v1/messages", json=question("random"), timeout=30)
    return anthropic.types.Message.model_validate(response.raise_for_status().json())


def read_text(reply: anthropic.types.Message) -> str:
    return "".join(block.text for block in reply.content if block.type == "text")


def prompt_tokens(reply: anthropic.types.Message) -> int:
    return reply.usage.input_tokens + (reply.usage.cache_read_input_tokens or 0)


def assert_billed(
    stack: LiveStack, tenant: Tenant, reply: anthropic.types.Message, expected: anthropic.types.Message
) -> UsageRecord:
    """Check that llama.cpp's counts are those of the reply, and of the bill."""
    wait_until_released(stack, tenant)
    [record] = stack.records(tenant)
    assert record.usage_source == UsageRecord.Source.PROVIDER
    assert record.output_tokens == reply.usage.output_tokens == OUTPUT_TOKENS
    assert prompt_tokens(reply) == prompt_tokens(expected)
    assert record.input_tokens == reply.usage.input_tokens
    assert record.cache_read_tokens == reply.usage.cache_read_input_tokens
    assert record.cost_nanos == (
        record.input_tokens * INPUT_NANOS
        + record.cache_read_tokens * CACHE_READ_NANOS
        + record.output_tokens * OUTPUT_NANOS
    )
    return record
