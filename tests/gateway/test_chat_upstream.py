"""An upstream that speaks Chat Completions behind the gateway: the client notices nothing, and the bill is as exact."""

import json
from typing import Any

import pytest

from billing.models import Upstream, UsageRecord
from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.gateway.checks import (
    assert_billed_once,
    assert_closed_in_time,
    assert_error,
    attempts_of,
    depart,
    wait_for_attempt,
    wait_for_record,
    wait_until_released,
)
from tests.gateway.scripted_upstream import scripted_upstream, whole
from tests.gateway.test_streams import assert_well_formed
from tests.gateway.wire import Connection, Stream, read_stream
from tests.support.live_stack import LiveStack, Tenant

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS: list[dict[str, Any]] = [{"name": name, "input_schema": SCHEMA} for name in ("get_weather", "read_" + "a" * 100)]
EITHER_WAY = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])


@pytest.fixture
def sold(stack: LiveStack, alice: Tenant) -> SoldModel:
    return sell_catalog_model(stack, alice, [stack.base_url], protocol=Upstream.Protocol.CHAT_COMPLETIONS)


def assemble(stream: Stream) -> list[dict[str, Any]]:
    """Return the content blocks of a stream as a client puts them together."""
    assert_well_formed(stream)
    content: list[dict[str, Any]] = []
    arguments = ""
    for event in stream.events:
        if event.name == "content_block_start":
            content.append(dict(event.data["content_block"]))
            arguments = ""
        elif event.name == "content_block_delta":
            delta = event.data["delta"]
            kind = delta["type"].removesuffix("_delta")
            if kind == "input_json":
                arguments += delta["partial_json"]
            else:
                content[-1][kind] += delta[kind]
        elif event.name == "content_block_stop" and content[-1]["type"] == "tool_use":
            content[-1]["input"] = json.loads(arguments or "{}")
    return content


def reply_to(
    stack: LiveStack, tenant: Tenant, sold: SoldModel, text: str, *, streamed: bool, **fields: Any
) -> dict[str, Any]:
    """Return content, stop_reason and usage of a reply, whichever way it came."""
    if not streamed:
        response = stack.post(tenant, text, model=sold.model_id, **fields)
        assert response.status_code == 200, response.text
        reply: dict[str, Any] = response.json()
        return {name: reply[name] for name in ("content", "stop_reason", "usage")}
    stream = read_stream(stack.base_url, tenant, text, model=sold.model_id, **fields)
    end = stream.only("message_delta")
    return {"content": assemble(stream), "stop_reason": end["delta"]["stop_reason"], "usage": end["usage"]}


@EITHER_WAY
@pytest.mark.parametrize("oddity", ["usage=late", "usage=last", "null_details", "no_done", "split_utf8; drip=1"])
def test_a_text_is_billed_as_the_provider_counted(
    stack: LiveStack, alice: Tenant, sold: SoldModel, oddity: str, streamed: bool
) -> None:
    reply = reply_to(stack, alice, sold, f"[[sandbox: tokens=60; cache_read=7; {oddity}]]", streamed=streamed)
    assert [block["type"] for block in reply["content"]] == ["text"]
    assert reply["stop_reason"] == "end_turn"
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.output_tokens) == (UsageRecord.Source.PROVIDER, 60)
    assert (reply["usage"]["input_tokens"], reply["usage"]["output_tokens"]) == (record.input_tokens, 60)
    cached = 0 if oddity == "null_details" else 7
    assert reply["usage"]["cache_read_input_tokens"] == record.cache_read_tokens == cached
    served = wait_for_attempt(stack, record)
    assert served.protocol == "chat_completions"
    assert served.usage is not None
    # Without the details nobody can tell the cached tokens from the others.
    assert record.input_tokens == served.usage["input"] + served.usage["cache_read"] - cached
    assert record.output_tokens == served.usage["output"]
    assert_billed_once(stack, alice, record)


@EITHER_WAY
@pytest.mark.parametrize("oddity", ["interleaved_tools", "odd_tool_id", "empty_arguments", "finish=stop"])
def test_thinking_and_tools(stack: LiveStack, alice: Tenant, sold: SoldModel, oddity: str, streamed: bool) -> None:
    text = f"[[sandbox: thinking=10; tokens=200; tool=get_weather,get_weather; {oddity}]]"
    reply = reply_to(stack, alice, sold, text, streamed=streamed, tools=TOOLS)
    assert [block["type"] for block in reply["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert reply["stop_reason"] == "tool_use"
    calls = reply["content"][-2:]
    assert {call["name"] for call in calls} == {"get_weather"}
    assert len({call["id"] for call in calls}) == 2
    assert all(call["id"].replace("_", "").replace("-", "").isalnum() for call in calls)
    assert all(set(call["input"]) == (set() if oddity == "empty_arguments" else {"city"}) for call in calls)


@EITHER_WAY
def test_a_long_tool_name_comes_back_whole(stack: LiveStack, alice: Tenant, sold: SoldModel, streamed: bool) -> None:
    long_name = TOOLS[1]["name"]
    fields = {"tools": TOOLS, "tool_choice": {"type": "tool", "name": long_name}}
    reply = reply_to(stack, alice, sold, "Read it. [[sandbox: tokens=100]]", streamed=streamed, **fields)
    assert [block["name"] for block in reply["content"] if block["type"] == "tool_use"] == [long_name]


@EITHER_WAY
@pytest.mark.parametrize("directive", ["no_usage", "negative_usage"])
def test_usage_that_is_missing_or_cannot_be_true(
    stack: LiveStack, alice: Tenant, sold: SoldModel, directive: str, streamed: bool
) -> None:
    reply = reply_to(stack, alice, sold, f"[[sandbox: {directive}; tokens=100]]", streamed=streamed)
    record = wait_for_record(stack, alice)
    assert record.usage_source == UsageRecord.Source.ESTIMATED
    assert (record.input_tokens, record.output_tokens) == (
        reply["usage"]["input_tokens"],
        reply["usage"]["output_tokens"],
    )
    assert 80 <= record.output_tokens <= 125
    assert 0 < record.cost_nanos <= record.hold_nanos
    assert_billed_once(stack, alice, record)


@pytest.mark.parametrize(
    ("directive", "code"),
    [
        ("error=mid", "upstream_overloaded"),
        ("reset=mid; pace=1", "upstream_broken"),
        ("close=mid", "upstream_protocol_error"),
        ("malformed_sse", "upstream_protocol_error"),
        ("finish=none", "upstream_protocol_error"),
        ("tool=get_weather; truncated_tool_json", "reply_unusable"),
    ],
)
def test_a_stream_that_breaks_ends_in_an_error_event(
    stack: LiveStack, alice: Tenant, sold: SoldModel, directive: str, code: str
) -> None:
    text = f"[[sandbox: tokens=200; {directive}]]"
    stream = read_stream(stack.base_url, alice, text, model=sold.model_id, tools=TOOLS)
    assert stream.names[0] == "message_start"
    assert stream.names[-1] == "error"
    assert stream.only("error")["error"]["code"] == code
    assert not {"message_delta", "message_stop"} & set(stream.names)
    record = wait_for_record(stack, alice)
    assert record.usage_source == UsageRecord.Source.PARTIAL
    assert 0 < record.cost_nanos <= record.hold_nanos
    assert_billed_once(stack, alice, record)


def test_the_client_leaves_midway(stack: LiveStack, alice: Tenant, sold: SoldModel) -> None:
    with Connection(stack.base_url) as connection:
        connection.send_message(alice, "[[sandbox: tokens=1000; pace=20]]", stream=True, model=sold.model_id)
        connection.read_until(b"content_block_delta")
        left_at = depart(connection, "reset")
    record = wait_for_record(stack, alice)
    assert record.usage_source == UsageRecord.Source.ESTIMATED
    assert record.output_tokens > 0
    assert_closed_in_time(wait_for_attempt(stack, record), left_at)
    assert_billed_once(stack, alice, record)


@EITHER_WAY
@pytest.mark.parametrize(
    ("directive", "status", "code"),
    [
        ("status=400; message=Invalid 'tools'.", 400, "upstream_invalid_request"),
        ("status=401", 502, "upstream_refused_credential"),
        ("status=429", 503, "upstream_rate_limited"),
        ("status=500", 502, "upstream_error"),
        ("html", 502, "upstream_error"),
    ],
)
def test_an_upstream_that_fails(
    stack: LiveStack, alice: Tenant, sold: SoldModel, directive: str, status: int, code: str, streamed: bool
) -> None:
    response = stack.post(alice, f"[[sandbox: {directive}]]", model=sold.model_id, stream=streamed)
    assert_error(response, status, code)
    assert len(attempts_of(stack, response)) == 1
    wait_until_released(stack, alice)
    assert stack.records(alice) == []


def test_a_server_that_knows_no_streams_is_relayed_as_one_and_billed(stack: LiveStack, alice: Tenant) -> None:
    reply = {
        "id": "chatcmpl-1",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 30, "completion_tokens": 12},
    }
    with scripted_upstream() as upstream:
        upstream.script = whole(json.dumps(reply).encode())
        sold = sell_catalog_model(
            stack,
            alice,
            [stack.base_url],
            upstream_urls=[upstream.url],
            protocol=Upstream.Protocol.CHAT_COMPLETIONS,
        )
        stream = read_stream(stack.base_url, alice, "Hi", model=sold.model_id)
        assert assemble(stream) == [{"type": "text", "text": "Hello"}]
        record = wait_for_record(stack, alice)
        assert_billed_once(stack, alice, record)
        assert (record.input_tokens, record.output_tokens, record.usage_source) == (30, 12, "provider")
        upstream.script = whole(b'{"error":{"message":"Busy","code":503}}')
        refusal = stack.post(alice, "Hi", model=sold.model_id, stream=True)
        assert_error(refusal, 503, "upstream_overloaded")
