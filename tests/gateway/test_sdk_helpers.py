"""The helpers of Anthropic's SDK, which ask for more than a plain request: tool_runner, parse, stream, formats."""

from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import beta_tool

from billing.models import Upstream
from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.support.live_stack import LiveStack, Tenant

TURNS = 2
CALL = "[[sandbox: tool=get_weather]]"


class Answer(pydantic.BaseModel):
    city: str
    degrees: int


@beta_tool
def get_weather(city: str) -> str:
    """Tell the weather.

    Args:
        city: Where.
    """
    return f"It rains in {city}. [[sandbox: say=Take an umbrella]]"


@pytest.fixture(params=[Upstream.Protocol.MESSAGES, Upstream.Protocol.CHAT_COMPLETIONS], ids=["messages", "chat"])
def sold(stack: LiveStack, alice: Tenant, request: pytest.FixtureRequest) -> SoldModel:
    return sell_catalog_model(stack, alice, [stack.base_url], protocol=request.param)


@pytest.fixture
def client(stack: LiveStack, alice: Tenant) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=stack.base_url, api_key=alice.secret, max_retries=0)


def question(sold: SoldModel, text: str, **fields: Any) -> Any:
    return {"model": sold.model_id, "max_tokens": 300, "messages": [{"role": "user", "content": text}], **fields}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_tool_runner_goes_on_without_a_thread(
    stack: LiveStack, alice: Tenant, client: anthropic.Anthropic, sold: SoldModel, stream: bool
) -> None:
    """It asks for a thread first, which is refused at no cost, and then sends the whole conversation each time."""
    runner: Any = client.beta.messages.tool_runner(
        **question(sold, f"What is the weather? {CALL}", tools=[get_weather]), stream=stream, max_iterations=TURNS
    )
    replies = [turn.get_final_message() if stream else turn for turn in runner]
    assert [reply.stop_reason for reply in replies] == ["tool_use", "end_turn"]
    stack.wait_until(lambda: len(stack.records(alice)) == TURNS, "both turns are settled, and nothing else")
    first, second = sorted(stack.records(alice), key=lambda record: record.admitted_at)
    assert second.input_tokens > first.input_tokens  # The history went with it.


def test_parse_reads_a_structured_output(client: anthropic.Anthropic, sold: SoldModel) -> None:
    for messages in (client.messages, client.beta.messages):
        reply: Any = messages.parse(**question(sold, "How warm?"), output_format=Answer)
        assert isinstance(reply.parsed_output, Answer)


def test_a_stream_helper_assembles_what_it_saw(client: anthropic.Anthropic, sold: SoldModel) -> None:
    with client.messages.stream(
        **question(
            sold,
            "Think. [[sandbox: tool=get_weather; thinking=40]]",
            thinking={"type": "enabled", "budget_tokens": 1_024},
            tools=[{"name": "get_weather", "input_schema": get_weather.input_schema}],
        )
        | {"max_tokens": 2_000}
    ) as stream:
        kinds = {event.type for event in stream}
        reply = stream.get_final_message()
    assert {"thinking", "input_json", "message_stop"} <= kinds
    assert [block.type for block in reply.content][-1] == "tool_use"
    assert reply.stop_reason == "tool_use"


def test_a_stream_helper_parses_too(client: anthropic.Anthropic, sold: SoldModel) -> None:
    with client.messages.stream(**question(sold, "How warm?"), output_format=Answer) as stream:
        assert isinstance(stream.get_final_message().parsed_output, Answer)


def test_a_thread_of_the_client_is_refused_with_details(client: anthropic.Anthropic, sold: SoldModel) -> None:
    with pytest.raises(anthropic.BadRequestError) as raised:
        client.beta.messages.create(**question(sold, "Hello!"), thread={"type": "create"})
    assert isinstance(raised.value, anthropic.types.ThreadUnsupportedRequestError)
    assert raised.value.error_code == "thread_unsupported_request"


def test_marks_of_a_client_are_no_part_of_a_name(client: anthropic.Anthropic, sold: SoldModel) -> None:
    marked = f"{sold.model_id}[1m]"
    reply = client.messages.create(**question(sold, "Hello!") | {"model": marked})
    assert reply.model == marked
    asked: Any = {"model": marked, "messages": [{"role": "user", "content": "Hello!"}]}
    assert client.messages.count_tokens(**asked).input_tokens > 0
    assert client.models.retrieve(marked).id == sold.model_id
