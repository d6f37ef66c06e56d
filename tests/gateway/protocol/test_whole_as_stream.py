"""A whole reply where a stream was asked for: the same events as a stream, or the same failure."""

from functools import partial
from typing import Any

import orjson
import pytest

from billing.pricing.cost import Usage
from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import RouteTarget, UpstreamCodec
from gateway.protocol.errors import UpstreamStreamError
from gateway.protocol.messages.codec import MessagesCodec
from gateway.protocol.usage_reading import UsageState
from gateway.protocol.whole_as_stream import WholeReplyDecoder, is_whole_reply
from tests.gateway.protocol.streams import IDENTITY, MESSAGE_STOP, Outcome, run
from tests.gateway.protocol.test_chat_replies import REQUEST
from tests.gateway.protocol.test_messages_replies import check_order

TARGET = RouteTarget("up")
CONTENT: list[dict[str, Any]] = [
    {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"},
    {"type": "text", "text": "Grüße", "citations": [{"type": "char_location", "cited_text": "G"}]},
    {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 2**70}},
    {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
]
USAGE = {"input_tokens": 20, "output_tokens": 12, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 10}
MESSAGE = {
    "id": "msg_theirs",
    "type": "message",
    "role": "assistant",
    "model": "theirs",
    "content": CONTENT,
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": USAGE,
}
CHAT_REPLY: dict[str, Any] = {
    "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 30, "completion_tokens": 12, "prompt_tokens_details": {"cached_tokens": 10}},
}


def decoder(codec: UpstreamCodec) -> WholeReplyDecoder:
    nothing_read = codec.stream_decoder(REQUEST, TARGET, IDENTITY).reading()
    return WholeReplyDecoder(partial(codec.decode_response, REQUEST, TARGET, identity=IDENTITY), nothing_read)


def decode(codec: UpstreamCodec, reply: Any) -> tuple[WholeReplyDecoder, Outcome]:
    reader, body = decoder(codec), orjson.dumps(reply) if isinstance(reply, dict) else reply
    return reader, run(reader, [body[:7], body[7:]])


def test_a_message_comes_as_its_blocks_in_deltas() -> None:
    body = orjson.dumps({**MESSAGE, "content": CONTENT[:2]})[:-1]  # orjson writes no number as large as the call's.
    text = b'{"type":"tool_use","id":"toolu_1","name":"look","input":{"at":1180591620717411303424}}'
    body = body.replace(b'"}]}]', b'"}]},' + text + b"," + orjson.dumps(CONTENT[3]) + b"]") + b"}"
    reader, outcome = decode(MessagesCodec(), body)
    check_order(outcome)
    events = outcome.events()
    start = events[0]["message"]
    assert (start["id"], start["model"]) == (IDENTITY.message_id, IDENTITY.model_id)
    assert (start["content"], start["stop_reason"], start["usage"]["input_tokens"]) == ([], None, 20)
    assert [event.get("delta") or event.get("content_block") for event in events[1:] if len(event) > 2] == [
        {"type": "thinking", "thinking": "", "signature": ""},
        {"type": "thinking_delta", "thinking": "Hm."},
        {"type": "signature_delta", "signature": "c2ln"},
        {"type": "text", "text": ""},
        {"type": "text_delta", "text": "Grüße"},
        {"type": "citations_delta", "citation": {"type": "char_location", "cited_text": "G"}},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
        {"type": "input_json_delta", "partial_json": '{"at":1180591620717411303424}'},
        CONTENT[3],
    ]
    assert outcome.last_events() == [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": USAGE},
        MESSAGE_STOP,
    ]
    assert reader.reading().usage == Usage(input_tokens=20, output_tokens=12, cache_read_tokens=10)


def test_a_reply_of_chat_completions_does_too() -> None:
    reader, outcome = decode(ChatCodec(), CHAT_REPLY)
    check_order(outcome)
    assert outcome.events()[2]["delta"] == {"type": "text_delta", "text": "Hello"}
    assert outcome.last_events()[0]["usage"] == USAGE
    assert reader.reading().state is UsageState.FINAL


@pytest.mark.parametrize("codec", [ChatCodec(), MessagesCodec()])
def test_an_error_that_came_with_200_is_one_before_anything_is_forwarded(codec: UpstreamCodec) -> None:
    reader, outcome = decode(codec, {"type": "error", "error": {"type": "overloaded_error", "message": "Busy"}})
    assert (outcome.forward, outcome.end, reader.has_started) == (b"", None, False)
    assert isinstance(outcome.failure, UpstreamStreamError)


def test_what_cannot_be_delivered_is_a_stream_that_broke_off_and_is_billed() -> None:
    call = {"id": "1", "function": {"name": "look", "arguments": "nonsense"}}
    reply = {**CHAT_REPLY, "choices": [{"message": {"tool_calls": [call]}, "finish_reason": "tool_calls"}]}
    reader, outcome = decode(ChatCodec(), reply)
    assert outcome.failure is not None
    assert (reader.has_started, outcome.failure.is_upstream_fault) == (True, False)
    assert reader.reading().usage.output_tokens == 12


@pytest.mark.parametrize(
    ("first", "is_whole"),
    [(b'{"id":', True), (b' \r\n {"id":', True), (b"", False), (b"data: {}", False), (b": ping\n\n", False)],
)
def test_only_an_object_is_no_stream(first: bytes, is_whole: bool) -> None:
    assert is_whole_reply(first) == is_whole
