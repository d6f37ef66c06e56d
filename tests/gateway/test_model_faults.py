"""What a model wrote is no fault of its upstream's: it is billed, told in the documented form, and opens no breaker."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from billing.models import Upstream
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_error, wait_for_record
from tests.gateway.scripted_upstream import (
    BLOCK,
    DELTA,
    MESSAGE,
    START,
    STOP,
    STREAM_HEAD,
    ScriptedUpstream,
    scripted_upstream,
    streamed,
    whole,
)
from tests.gateway.wire import read_stream
from tests.support.live_stack import LiveStack, Tenant

ENOUGH_TO_OPEN_A_BREAKER = 6
CHAT = Upstream.Protocol.CHAT_COMPLETIONS
BROKEN_CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": '}}
NO_MODEL = {"type": "error", "error": {"type": "not_found_error", "message": "model: theirs"}}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        yield upstream


def nested(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


def message_with_input(arguments: str) -> bytes:
    block = '{"type":"tool_use","id":"toolu_1","name":"f","input":' + arguments + "}"
    fields = {**MESSAGE, "stop_reason": "tool_use", "usage": {"input_tokens": 7, "output_tokens": 500}}
    return json.dumps(fields).replace('"content": []', f'"content": [{block}]').encode()


def chat_reply(message: dict[str, Any], finish: str = "tool_calls") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return {"id": "c", "choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 500}}


@pytest.mark.parametrize(
    ("protocol", "reply", "source"),
    [
        (Upstream.Protocol.MESSAGES, message_with_input(nested(240)), "provider"),
        (Upstream.Protocol.MESSAGES, message_with_input(nested(3_000)), "estimated"),
        (Upstream.Protocol.MESSAGES, message_with_input('{"a": [Infinity, NaN, 1e400]}'), "provider"),
        (Upstream.Protocol.MESSAGES, message_with_input('{"a": ' + "9" * 5_000 + "}"), "provider"),
        (CHAT, json.dumps(chat_reply({"tool_calls": [BROKEN_CALL]})).encode(), "provider"),
    ],
    ids=["nested", "nested past reading", "no numbers", "5,000 digits", "broken arguments"],
)
def test_a_whole_reply_that_cannot_be_delivered_is_billed(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, protocol: Upstream.Protocol, reply: bytes, source: str
) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url], protocol=protocol)
    upstream.script = whole(reply)
    for _ in range(ENOUGH_TO_OPEN_A_BREAKER):
        response = stack.post(alice, model=sold.model_id)
        assert_error(response, 502, "reply_unusable")
        assert response.headers["x-should-retry"] == "false"
    assert len(upstream.requests) == ENOUGH_TO_OPEN_A_BREAKER
    stack.wait_until(lambda: len(stack.records(alice)) == ENOUGH_TO_OPEN_A_BREAKER, "all are settled")
    record = stack.records(alice)[0]
    assert record.usage_source == source
    assert record.output_tokens > 0 and record.cost_nanos > 0
    if source == "provider":
        assert (record.input_tokens, record.output_tokens) == (7, 500)


def test_a_stream_with_broken_arguments_is_billed_and_opens_no_breaker(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream
) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url], protocol=CHAT)
    choice = {"index": 0, "delta": {"tool_calls": [{"index": 0, **BROKEN_CALL}]}, "finish_reason": "tool_calls"}
    upstream.script = STREAM_HEAD + b"data: %b\n\ndata: [DONE]\n\n" % json.dumps({"choices": [choice]}).encode()
    for _ in range(ENOUGH_TO_OPEN_A_BREAKER):
        stream = read_stream(stack.base_url, alice, model=sold.model_id)
        assert stream.only("error")["error"]["code"] == "reply_unusable"
    assert len(upstream.requests) == ENOUGH_TO_OPEN_A_BREAKER
    stack.wait_until(lambda: len(stack.records(alice)) == ENOUGH_TO_OPEN_A_BREAKER, "all are settled")
    assert all(record.output_tokens > 0 for record in stack.records(alice))


def test_an_emoji_in_two_deltas_arrives_whole(stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
    first, second = ((DELTA[0], DELTA[1].replace(b'"Hi"', half)) for half in (b'"Hi \\ud83d"', b'"\\ude00!"'))
    end = (
        "message_delta",
        b'{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":5}}',
    )
    # The block is left open, as some servers do at the limit of tokens.
    upstream.script = streamed(START, BLOCK, first, second, end, STOP)
    stream = read_stream(stack.base_url, alice, model=sold.model_id)
    assert stream.reply_text == "Hi 😀!"
    assert stream.names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.output_tokens) == ("provider", 5)


def test_a_model_that_the_upstream_lacks_is_not_asked_for_again(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream
) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
    upstream.script = whole(json.dumps(NO_MODEL).encode(), status="404 Not Found")
    for stream in (False, True):
        response = stack.post(alice, model=sold.model_id, stream=stream)
        assert_error(response, 502, "upstream_error")
        assert response.headers["x-should-retry"] == "false"


def test_details_of_a_refusal_reach_the_client(stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
    details = {"error_code": "tool_name_conflict"}
    error = {"type": "invalid_request_error", "message": "Two tools have one name.", "details": details}
    upstream.script = whole(json.dumps({"type": "error", "error": error}).encode(), status="400 Bad Request")
    response = stack.post(alice, model=sold.model_id)
    assert response.status_code == 400
    assert response.json()["error"] == {**error, "code": "upstream_invalid_request"}
