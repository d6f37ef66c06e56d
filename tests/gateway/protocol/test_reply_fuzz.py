"""Replies with a wrong value at every place: clients get a form that their SDK reads, and what was written is counted.

A value that says nothing breaks nothing. What is left is a call that nobody could make, or an end that was never said.
"""

import random
from typing import Any

import orjson
import pytest
from anthropic import APIError
from anthropic.types import Message

from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import RouteTarget, UpstreamCodec
from gateway.protocol.errors import UnusableReplyError, UpstreamProtocolError
from gateway.protocol.messages.codec import MessagesCodec
from gateway.protocol.sse import encode_error_event
from tests.gateway.protocol import test_chat_stream as chat
from tests.gateway.protocol import test_messages_replies as messages
from tests.gateway.protocol.mutations import (
    EMPTY,
    OTHERS,
    SEED,
    Mutation,
    cut_anywhere,
    mutated_streams,
    mutations_of,
    written,
)
from tests.gateway.protocol.streams import IDENTITY, Outcome, chat_sse, run, sse
from tests.gateway.protocol.test_chat_replies import REQUEST, call
from tests.gateway.protocol.test_official_sdk import read_stream

CHAT, MESSAGES = ChatCodec(), MessagesCodec()
TARGET = RouteTarget("up")
READ_BY_THE_SDK = 150  # Of each protocol's streams: it takes as long as all the rest.
ERROR = encode_error_event(error_type="api_error", code="upstream_broken", message="Broken.", request_id="r")
CHAT_MESSAGE = {
    "role": "assistant",
    "content": "Hello",
    "reasoning_content": "hm",
    "refusal": None,
    "tool_calls": [call(arguments='{"a": 1}')],
}
CHAT_REPLY = {
    "id": "chatcmpl-1",
    "created": 5,
    "choices": [{"index": 0, "message": CHAT_MESSAGE, "finish_reason": "tool_calls", "logprobs": None}],
    "usage": chat.USAGE,
}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "theirs",
    "content": [
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "text", "text": "Hello", "citations": None},
        {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"a": 1}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {
        "input_tokens": 5,
        "output_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "server_tool_use": {"web_search_requests": 0, "web_fetch_requests": 0},
        "service_tier": "standard",
    },
}
# What is not plain when a value is lost.
CALL_IS_LOST = (
    "a tool call without",
    "a tool call whose arguments",
    "more arguments for a tool call",
    "content_block_delta for block 2",
)
END_IS_LOST = ("the stream ended without a finish_reason",)
WHOLE = pytest.mark.parametrize(("codec", "reply"), [(CHAT, CHAT_REPLY), (MESSAGES, MESSAGE)], ids=["chat", "messages"])
STREAMED = pytest.mark.parametrize(
    ("codec", "payloads"), [(CHAT, chat.FULL), (MESSAGES, messages.FULL)], ids=["chat", "messages"]
)


def decode(codec: UpstreamCodec, chunks: list[bytes]) -> tuple[Outcome, Any]:
    decoder = codec.stream_decoder(REQUEST, TARGET, IDENTITY)
    outcome = run(decoder, chunks)
    assert (outcome.end is None) != (outcome.failure is None)
    reading = decoder.reading()
    assert reading.is_complete is (outcome.end is not None)
    return outcome, reading


def encoded(codec: UpstreamCodec, payloads: list[Any]) -> bytes:
    if codec is CHAT:
        return chat_sse(*(orjson.dumps(payload) for payload in payloads))
    named = [p for p in payloads if isinstance(p, dict) and isinstance(p.get("type"), str) and p["type"]]
    if len(named) == len(payloads):
        return sse(*payloads)
    return b"".join(b"data: %b\n\n" % orjson.dumps(payload) for payload in payloads)


def decode_whole(codec: UpstreamCodec, value: Any) -> dict[str, Any] | UpstreamProtocolError:
    """Return the message as the client gets it, or why there is none."""
    try:
        message: dict[str, Any] = orjson.loads(
            codec.decode_response(REQUEST, TARGET, orjson.dumps(value), IDENTITY).encode()
        )
    except UpstreamProtocolError as error:
        return error
    return message


def check_client(outcome: Outcome, reading: Any) -> None:
    """Read what the client gets by the official SDK: it ends, or raises as it does for an error that it is told."""
    if not outcome.forward and outcome.end is None:
        return
    if outcome.end is None:
        with pytest.raises((APIError, ValueError)):
            read_stream(outcome.forward + ERROR)
        return
    try:
        message = read_stream(outcome.text())
    except ValueError as error:
        if "tool parameter JSON" not in str(error):  # What its own parser says of arguments that are none.
            raise
        return
    texts = [block.text for block in message.content if block.type == "text"]
    assert reading.delivered_bytes >= len("".join(texts).encode())
    assert isinstance(message.stop_reason, str)
    assert message.role == "assistant"


@WHOLE
def test_a_whole_reply_with_a_wrong_value_is_a_message_or_told(codec: UpstreamCodec, reply: dict[str, Any]) -> None:
    for where, value in mutations_of(reply):
        message = decode_whole(codec, value)
        if isinstance(message, UnusableReplyError):
            assert message.reading.delivered_bytes > 0, where
            continue
        if isinstance(message, UpstreamProtocolError):
            assert where.split(" ")[0] in ("all", "type"), (where, message.reason)
            continue
        for block in message["content"]:
            assert isinstance(block.get("text", ""), str) and isinstance(block.get("thinking", ""), str), where
            assert isinstance(block.get("input", {}), dict) and block.get("id") != "", where
        if not any(block["type"].startswith("x") for block in message["content"]):
            plain = {**message, "usage": {"input_tokens": 1, "output_tokens": 1}}
            plain["stop_reason"], plain["container"] = "end_turn", None
            assert Message.model_validate_json(orjson.dumps(plain), strict=True), where


@WHOLE
def test_nothing_at_any_place_breaks_no_whole_reply(codec: UpstreamCodec, reply: dict[str, Any]) -> None:
    for where, value in mutations_of(reply, EMPTY):
        message = decode_whole(codec, value)
        if where.startswith("all"):
            assert isinstance(message, UpstreamProtocolError)
        elif isinstance(message, UpstreamProtocolError):
            assert isinstance(message, UnusableReplyError), (where, message.reason)
            assert message.reason.startswith(CALL_IS_LOST), (where, message.reason)


@STREAMED
def test_nothing_at_any_place_breaks_no_stream(codec: UpstreamCodec, payloads: list[Any]) -> None:
    for index, payload in enumerate(payloads):
        for where, value in mutations_of(payload, EMPTY):
            if where == "index = 0":
                continue  # That is another block.
            outcome, _ = decode(codec, [encoded(codec, [*payloads[:index], value, *payloads[index + 1 :]])])
            if outcome.failure is not None:
                reason = outcome.failure.reason
                assert reason.startswith((*CALL_IS_LOST, *END_IS_LOST)), (index, where, reason)


@STREAMED
def test_what_is_wrong_in_a_stream_reaches_no_client_as_it_is(codec: UpstreamCodec, payloads: list[Any]) -> None:
    randomness = random.Random(SEED)
    mutated: list[Mutation] = list(mutated_streams(payloads, OTHERS))
    for_the_sdk = set(randomness.sample(range(len(mutated)), READ_BY_THE_SDK))
    for number, mutation in enumerate(mutated):
        outcome, reading = decode(codec, [encoded(codec, mutation.value)])
        assert outcome.failure is None or outcome.failure.reason, mutation.where
        if number in for_the_sdk:
            check_client(outcome, reading)


@STREAMED
def test_a_stream_that_is_cut_at_any_byte_ends_or_is_told(codec: UpstreamCodec, payloads: list[Any]) -> None:
    stream = encoded(codec, payloads)
    whole, _ = decode(codec, [stream])
    delivered = 0
    for place in range(len(stream)):
        outcome, reading = decode(codec, [stream[:place]])
        assert whole.forward.startswith(outcome.forward) or outcome.end or outcome.failure
        assert reading.delivered_bytes >= delivered
        delivered = reading.delivered_bytes


@STREAMED
@pytest.mark.parametrize("seed", range(40))
def test_however_it_is_written_and_cut_it_says_the_same(codec: UpstreamCodec, payloads: list[Any], seed: int) -> None:
    randomness = random.Random(SEED + seed)
    expected, known = decode(codec, [encoded(codec, payloads)])
    stream = written(payloads, randomness) + (b"data: [DONE]\n\n" if codec is CHAT else b"")
    outcome, reading = decode(codec, cut_anywhere(stream, randomness))
    assert (outcome.failure, reading) == (None, known)
    assert outcome.events() == expected.events()


def test_the_end_was_said_though_its_last_event_is_missing() -> None:
    for tail in ([], [None], [{"type": "ping"}], [{"type": "novel"}]):
        payloads = [*messages.FULL[:-1], *tail]
        outcome, reading = decode(MESSAGES, [encoded(MESSAGES, payloads)])
        assert outcome.failure is None
        assert outcome.last_events()[-1] == {"type": "message_stop"}
        assert (reading.state, reading.usage.output_tokens) == ("final", 42)


def test_what_was_cut_off_behind_the_end_is_nothing() -> None:
    stream = encoded(MESSAGES, messages.FULL)
    outcome, _ = decode(MESSAGES, [stream[: stream.rindex(b"message_stop") + 3]])
    assert outcome.failure is None
