"""Streams where whole replies were asked for, and replies of forms before and beside: each says what the usual says."""

from typing import Any

import orjson
import pytest

from billing.pricing.cost import Usage
from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import DecodedMessage, RouteTarget, UpstreamCodec
from gateway.protocol.errors import UnusableReplyError, UpstreamProtocolError
from gateway.protocol.messages.codec import MessagesCodec
from gateway.protocol.usage_reading import UsageState
from tests.gateway.protocol.streams import (
    IDENTITY,
    MESSAGE_STOP,
    Outcome,
    block_start,
    block_stop,
    call_chunk,
    chat_chunk,
    chat_sse,
    message_delta,
    message_start,
    run,
    sse,
    text_delta,
)
from tests.gateway.protocol.test_chat_replies import REQUEST, call, reply
from tests.gateway.protocol.test_messages_replies import check_order

USAGE = {"prompt_tokens": 30, "completion_tokens": 12}
SAID = Usage(input_tokens=30, output_tokens=12)
CALL = {"name": "get_weather", "arguments": '{"a": 1}'}
TOOL_USE = {"type": "tool_use", "name": "get_weather", "input": {"a": 1}}
HI = [{"type": "text", "text": "Hi"}]


def target() -> RouteTarget:
    return RouteTarget("up")


def whole(codec: UpstreamCodec, body: bytes) -> DecodedMessage:
    return codec.decode_response(REQUEST, target(), body, IDENTITY)


def streamed(codec: UpstreamCodec, *chunks: bytes) -> tuple[Outcome, Any]:
    decoder = codec.stream_decoder(REQUEST, target(), IDENTITY)
    outcome = run(decoder, chunks)
    return outcome, decoder.reading()


def put_together(outcome: Outcome) -> dict[str, Any]:
    """Return the message of a stream as a client puts it together."""
    assert outcome.failure is None
    check_order(outcome)
    message: dict[str, Any] = {}
    arguments = ""
    for event in outcome.events() + outcome.last_events():
        if event["type"] == "message_start":
            message = event["message"]
        elif event["type"] == "content_block_start":
            message["content"].append(event["content_block"])
            arguments = ""
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][-1], event["delta"]
            if delta["type"] == "input_json_delta":
                arguments += delta["partial_json"]
                block["input"] = orjson.loads(arguments) if arguments.endswith("}") else {}
            else:
                name = delta["type"].removesuffix("_delta")
                block[name] += delta[name]
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] |= event["usage"]
    return message


def chat_body(message: dict[str, Any], finish: str = "stop") -> bytes:
    return reply({"role": "assistant", **message}, finish, usage=USAGE)


def test_a_stream_where_a_whole_message_was_asked_for() -> None:
    pieces = ("text", "Hi"), ("json", '{"a": '), ("json", "1}")
    events = [
        message_start(),
        block_start(0),
        text_delta(0, pieces[0][1]),
        block_stop(0),
        block_start(1, {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}),
        *(
            {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": text}}
            for kind, text in pieces
            if kind == "json"
        ),
        block_stop(1),
        message_delta("tool_use", output_tokens=12),
        MESSAGE_STOP,
    ]
    decoded = whole(MessagesCodec(), b"\n" + sse(*events))
    message = orjson.loads(decoded.encode())
    assert message["content"] == [*HI, {**TOOL_USE, "id": "toolu_1"}]
    assert (message["id"], message["model"], message["stop_reason"]) == (*IDENTITY, "tool_use")
    assert (message["usage"]["input_tokens"], message["usage"]["output_tokens"]) == (25, 12)
    assert (decoded.reading.state, decoded.reading.usage) == (UsageState.FINAL, Usage(25, 12))


def test_a_chat_stream_where_a_whole_reply_was_asked_for() -> None:
    chunks = [
        chat_chunk({"reasoning_content": "Hm."}),
        chat_chunk({"content": "H"}),
        chat_chunk({"content": "i"}),
        call_chunk(0, '{"a": 1}', call_id="call_abcdef", name="get_weather"),
        chat_chunk(finish="tool_calls", usage=USAGE),
    ]
    decoded = whole(ChatCodec(), b": PROCESSING\n\n" + chat_sse(*chunks))
    assert [block["type"] for block in decoded.message["content"]] == ["thinking", "text", "tool_use"]
    assert decoded.message["content"][1:] == [*HI, {**TOOL_USE, "id": "call_abcdef"}]
    assert decoded.message["stop_reason"] == "tool_use"
    assert (decoded.reading.state, decoded.reading.usage) == (UsageState.FINAL, SAID)


def test_a_stream_that_breaks_is_no_whole_reply() -> None:
    with pytest.raises(UpstreamProtocolError) as caught:
        whole(ChatCodec(), chat_sse(chat_chunk({"content": "Hi"}), done=False))
    assert caught.value.is_upstream_fault
    broken = chat_sse(call_chunk(0, "{", name="f"), chat_chunk(finish="tool_calls", usage=USAGE))
    with pytest.raises(UnusableReplyError) as unusable:
        whole(ChatCodec(), broken)
    assert unusable.value.reading.usage == SAID


def test_a_call_in_the_form_before_tool_calls() -> None:
    decoded = whole(ChatCodec(), chat_body({"content": None, "function_call": CALL}, "function_call"))
    assert [{**block, "id": ""} for block in decoded.message["content"]] == [{**TOOL_USE, "id": ""}]
    assert decoded.message["stop_reason"] == "tool_use"
    pieces = [
        {"name": "get_weather", "arguments": ""},
        {"arguments": '{"a"'},
        {"name": "get_weather", "arguments": ": 1}"},
    ]
    chunks = [chat_chunk({"function_call": piece}) for piece in pieces]
    outcome, _ = streamed(ChatCodec(), chat_sse(*chunks, chat_chunk(finish="function_call", usage=USAGE)))
    message = put_together(outcome)
    assert [{**block, "id": ""} for block in message["content"]] == [{**TOOL_USE, "id": ""}]
    assert message["stop_reason"] == "tool_use"


def test_a_call_in_both_forms_is_one() -> None:
    both = {"content": "", "function_call": CALL, "tool_calls": [call(arguments='{"a": 1}')]}
    assert len(whole(ChatCodec(), chat_body(both)).message["content"]) == 1


def message_chunk(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": message, **choice}]}


def test_a_message_where_a_chunk_has_its_delta() -> None:
    chunks = [message_chunk({"content": "H"}), message_chunk({"content": "i"}, finish_reason="stop")]
    outcome, _ = streamed(ChatCodec(), chat_sse(*chunks))
    assert put_together(outcome)["content"] == HI
    # Beside deltas it repeats what they said.
    repeats = [chat_chunk({"content": "Hi"}), message_chunk({"content": "Hi"}, delta={}, finish_reason="stop")]
    outcome, _ = streamed(ChatCodec(), chat_sse(*repeats))
    assert put_together(outcome)["content"] == HI


@pytest.mark.parametrize(
    "choices", [[], [{"index": 0, "finish_reason": "content_filter: PROHIBITED_CONTENT"}]], ids=["none", "no message"]
)
def test_what_the_filter_of_a_provider_leaves(choices: list[dict[str, Any]]) -> None:
    usage = {"prompt_tokens": 30, "completion_tokens": 0, "total_tokens": 30}
    payload = {"id": "c", "choices": choices, "usage": usage}
    decoded = whole(ChatCodec(), orjson.dumps(payload))
    outcome, reading = streamed(ChatCodec(), chat_sse(payload))
    for message in (decoded.message, put_together(outcome)):
        assert (message["content"], message["stop_reason"]) == ([], "refusal")
        assert message["usage"]["input_tokens"] == 30
    assert decoded.reading.state == reading.state == UsageState.FINAL


def test_the_choice_that_was_asked_for_among_several() -> None:
    def choice(index: int, text: str) -> dict[str, Any]:
        return {"index": index, "message": {"content": text}, "finish_reason": "stop"}

    body = {"choices": [choice(1, "other"), choice(0, "Hi")], "usage": USAGE}
    assert whole(ChatCodec(), orjson.dumps(body)).message["content"] == HI
    chunk = chat_chunk({"content": "Hi"}, "stop")
    chunk["choices"][0]["index"] = 1  # Where all count from one.
    outcome, _ = streamed(ChatCodec(), chat_sse(chunk))
    assert put_together(outcome)["content"] == HI


def test_the_reason_for_the_end_before_the_last_text() -> None:
    outcome, _ = streamed(ChatCodec(), chat_sse(chat_chunk({"content": "H"}, "stop"), chat_chunk({"content": "i"})))
    message = put_together(outcome)
    assert (message["content"], message["stop_reason"]) == (HI, "end_turn")
