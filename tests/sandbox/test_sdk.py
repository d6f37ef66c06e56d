"""The official SDK against the sandbox itself: if it is content here, a failure behind the gateway is the gateway's."""

from collections.abc import Iterator

import anthropic
import pytest

from sandbox.replies import SENTENCE
from tests.support.sandbox_process import SandboxServer


@pytest.fixture
def sdk(sandbox: SandboxServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=sandbox.url, api_key="sdk-key", max_retries=0) as client:
        yield client


def message(text: str) -> list[anthropic.types.MessageParam]:
    return [{"role": "user", "content": text}]


def test_create(sdk: anthropic.Anthropic) -> None:
    reply = sdk.messages.create(model="sandbox-large", max_tokens=100, messages=message("Hello"))
    assert isinstance(reply.content[0], anthropic.types.TextBlock) and reply.content[0].text == SENTENCE
    assert (reply.stop_reason, reply.usage.input_tokens) == ("end_turn", 2)
    assert reply._request_id is not None


def test_stream_with_thinking_and_a_tool(sdk: anthropic.Anthropic) -> None:
    with sdk.messages.stream(
        model="sandbox-large",
        max_tokens=300,
        messages=message("Hello [[sandbox: tokens=120; thinking=20; tool=get_weather]]"),
        tools=[{"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}],
    ) as stream:
        text = "".join(stream.text_stream)
        reply = stream.get_final_message()
    thinking, said, call = reply.content
    assert isinstance(thinking, anthropic.types.ThinkingBlock) and thinking.signature
    assert isinstance(said, anthropic.types.TextBlock) and said.text == text
    assert isinstance(call, anthropic.types.ToolUseBlock) and call.input == {"city": "sandbox"}
    assert (reply.usage.output_tokens, reply.stop_reason) == (120, "tool_use")


def test_count_tokens_and_models(sdk: anthropic.Anthropic) -> None:
    assert sdk.messages.count_tokens(model="m", messages=message("Hello")).input_tokens == 2
    assert [listed.id for listed in sdk.models.list()] == ["sandbox-large", "sandbox-small"]


@pytest.mark.parametrize(
    ("directive", "error"),
    [
        ("status=400", anthropic.BadRequestError),
        ("status=401", anthropic.AuthenticationError),
        ("status=429", anthropic.RateLimitError),
        ("status=529", anthropic.InternalServerError),
        ("reset=before_headers", anthropic.APIConnectionError),
    ],
)
def test_errors(sdk: anthropic.Anthropic, directive: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        sdk.messages.create(model="m", max_tokens=10, messages=message(f"[[sandbox: {directive}]]"))


def test_error_in_the_middle_of_a_stream(sdk: anthropic.Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="Overloaded"),
        sdk.messages.stream(model="m", max_tokens=100, messages=message("[[sandbox: error=mid; tokens=50]]")) as stream,
    ):
        for _ in stream:
            pass
