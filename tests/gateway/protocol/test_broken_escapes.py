"""Arguments in which a model wrote half a character as an escape: whole ones for the client, however they were cut."""

import json
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import RouteTarget, StreamDecoder
from gateway.protocol.json.arguments import read_arguments
from gateway.protocol.json.broken_escapes import EscapeMender
from gateway.protocol.messages.codec import MessagesCodec
from tests.gateway.protocol.streams import (
    CUTS,
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
)
from tests.gateway.protocol.test_chat_replies import REQUEST

SNIPPETS = ["\\", '"', "u", "d", "8", "0", "a", "\n", "\\ud83d", "\\ude00", "\\\\", "\ud83d", "\ude00"]
TEXTS = st.lists(st.sampled_from(SNIPPETS), max_size=12).map("".join)
BROKEN = r'{"city": "a\ud83d\ude00 b\ud83d"}'
WHOLE = {"city": "a\U0001f600 b\ufffd"}
TOOL_USE: dict[str, Any] = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}


def pieces_of(text: str, places: list[int]) -> list[str]:
    bounds = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(bounds)]


@given(TEXTS, CUTS)
@example("\ud83d\\ud83d\\", [])
def test_whatever_is_cut_comes_out_as_what_it_means(value: str, places: list[int]) -> None:
    text = json.dumps({"a": value, "b": value[::-1]})
    mender = EscapeMender()
    mended = "".join([mender.mend(piece) for piece in pieces_of(text, places)] + [mender.end()])
    expected = {key: half_less(each) for key, each in json.loads(text).items()}
    assert orjson.loads(mended) == expected
    assert read_arguments(text) == expected


def half_less(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def test_what_has_no_such_escape_is_let_through_as_it_is() -> None:
    mender = EscapeMender()
    for text in ('{"a": "b\\n', "c\\\\d", 'e\\u00fc\\\\ud83d"', "}"):
        assert mender.mend(text) == text
    assert mender.end() == ""


def test_what_breaks_off_in_an_escape_is_not_lost() -> None:
    mender = EscapeMender()
    assert mender.mend(r'{"a": "b\ud8') == '{"a": "b'
    assert mender.end() == r"\ud8"
    assert mender.mend(r'{"a": "b\ud83d') + mender.end() == r'{"a": "b\ufffd'


def arguments_of(outcome: Outcome) -> str:
    assert outcome.failure is None
    assert outcome.end is not None
    deltas = [event["delta"] for event in outcome.events() if event["type"] == "content_block_delta"]
    return "".join(delta["partial_json"] for delta in deltas)


def messages_stream(pieces: list[str]) -> tuple[StreamDecoder, bytes]:
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
        for piece in pieces
    ]
    events = [
        message_start(),
        block_start(0, TOOL_USE),
        *deltas,
        block_stop(0),
        message_delta("tool_use"),
        MESSAGE_STOP,
    ]
    return MessagesCodec().stream_decoder(REQUEST, RouteTarget("up"), IDENTITY), sse(*events)


def chat_stream(pieces: list[str]) -> tuple[StreamDecoder, bytes]:
    first = call_chunk(0, "", call_id="call_1", name="get_weather")
    events = [first, *(call_chunk(0, piece) for piece in pieces), chat_chunk(finish="tool_calls")]
    return ChatCodec().stream_decoder(REQUEST, RouteTarget("up"), IDENTITY), chat_sse(*events)


@pytest.mark.parametrize("stream", [messages_stream, chat_stream])
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 100])
def test_a_client_can_read_the_arguments_of_a_stream(stream: Any, size: int) -> None:
    pieces = [BROKEN[place : place + size] for place in range(0, len(BROKEN), size)]
    decoder, raw = stream(pieces)
    assert orjson.loads(arguments_of(run(decoder, [raw]))) == WHOLE


def test_the_arguments_of_a_whole_reply_are_no_fault_of_the_upstream() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": BROKEN}}
    choice = {"index": 0, "message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": "tool_calls"}
    usage = {"prompt_tokens": 3, "completion_tokens": 4}
    body = orjson.dumps({"id": "c", "choices": [choice], "usage": usage})
    decoded = ChatCodec().decode_response(REQUEST, RouteTarget("up"), body, IDENTITY)
    assert decoded.message["content"][0]["input"] == WHOLE


def test_half_a_character_at_the_end_of_cut_arguments_is_shown_as_one_that_is_missing() -> None:
    cut = chat_sse(
        call_chunk(0, "", call_id="call_1", name="get_weather"),
        orjson.dumps(call_chunk(0, '{"city": "a@')).replace(b"@", b"\\ud83d"),
        chat_chunk(finish="length"),
    )
    decoder = ChatCodec().stream_decoder(REQUEST, RouteTarget("up"), IDENTITY)
    assert arguments_of(run(decoder, [cut])) == '{"city": "a\ufffd'
