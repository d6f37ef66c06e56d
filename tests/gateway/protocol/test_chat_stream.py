"""Streams of Chat Completions as Messages events: rows 2, 3, 4, 5, 7 and 8."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing import Usage
from gateway.protocol import chat_blocks
from gateway.protocol.chat_codec import ChatCodec
from gateway.protocol.codec import RouteTarget, StreamDecoder
from gateway.protocol.errors import UpstreamProtocolError, UpstreamStreamError
from gateway.protocol.reading import UsageState
from tests.gateway.protocol.streams import (
    CUTS,
    IDENTITY,
    MESSAGE_STOP,
    Outcome,
    call_chunk,
    chat_chunk,
    chat_sse,
    cut,
    run,
)
from tests.gateway.protocol.test_chat_replies import LONG_NAME, REQUEST
from tests.gateway.protocol.test_messages_replies import check_order

USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "prompt_tokens_details": {"cached_tokens": 10}}
USAGE_CHUNK = {"id": "chatcmpl-1", "choices": [], "usage": USAGE}
ROLE = chat_chunk({"role": "assistant", "content": ""})


def decoder() -> StreamDecoder:
    return ChatCodec().stream_decoder(REQUEST, RouteTarget("up"), IDENTITY)


def decode(*payloads: dict[str, Any] | bytes, done: bool = True) -> Outcome:
    return run(decoder(), [chat_sse(*payloads, done=done)])


def read(*payloads: dict[str, Any]) -> Any:
    reader = decoder()
    run(reader, [chat_sse(*payloads)])
    return reader.reading()


def blocks_of(outcome: Outcome) -> list[tuple[str, str]]:
    """Return type and text of each block: what a client would put together."""
    check_order(outcome)
    blocks: list[list[str]] = []
    for event in outcome.events():
        if event["type"] == "content_block_start":
            blocks.append([event["content_block"]["type"], ""])
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            blocks[-1][1] += delta.get("text", "") + delta.get("thinking", "") + delta.get("partial_json", "")
    return [(kind, text) for kind, text in blocks]


def call_blocks(outcome: Outcome) -> list[tuple[str, str]]:
    """Return id and name of each tool_use block."""
    starts = [event["content_block"] for event in outcome.events() if event["type"] == "content_block_start"]
    return [(block["id"], block["name"]) for block in starts if block["type"] == "tool_use"]


def test_a_text_with_usage_after_the_finish_reason() -> None:
    outcome = decode(
        ROLE, chat_chunk({"content": "Hel"}), chat_chunk({"content": "lo"}), chat_chunk(finish="stop"), USAGE_CHUNK
    )
    assert outcome.failure is None
    assert outcome.events() == [
        {
            "type": "message_start",
            "message": {
                "id": IDENTITY.message_id,
                "type": "message",
                "role": "assistant",
                "model": IDENTITY.model_id,
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": {
                    "input_tokens": 0,
                    "output_tokens": 0,
                    "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                },
            },
        },
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Hel"}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "lo"}},
        {"type": "content_block_stop", "index": 0},
    ]
    assert outcome.last_events() == [
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {
                "input_tokens": 20,
                "output_tokens": 12,
                "cache_creation_input_tokens": 0,
                "cache_read_input_tokens": 10,
            },
        },
        MESSAGE_STOP,
    ]


EXPECTED_USAGE = Usage(input_tokens=20, output_tokens=12, cache_read_tokens=10)


@pytest.mark.parametrize(
    "chunks",
    [
        [chat_chunk({"content": "a"}, "stop"), USAGE_CHUNK],
        [chat_chunk({"content": "a"}, "stop", usage=None), {"choices": None, "usage": USAGE}],
        [chat_chunk({"content": "a"}), chat_chunk(finish="stop", usage=USAGE)],
        [chat_chunk({"content": "a"}, "stop", usage=USAGE)],
        # Cumulative in every chunk: the last one counts, none is added.
        [chat_chunk({"content": "a"}, usage={**USAGE, "completion_tokens": 1}), chat_chunk(finish="stop", usage=USAGE)],
    ],
)
def test_usage_wherever_it_comes(chunks: list[dict[str, Any]]) -> None:
    reading = read(*chunks)
    assert (reading.state, reading.usage) == (UsageState.FINAL, EXPECTED_USAGE)


def test_usage_that_never_comes_is_absent_and_delivered_bytes_are_known() -> None:
    reading = read(chat_chunk({"reasoning_content": "hm"}), chat_chunk({"content": "né"}), chat_chunk(finish="stop"))
    assert (reading.state, reading.delivered_bytes, reading.is_complete) == (UsageState.ABSENT, 5, True)


def test_the_end_waits_for_the_usage() -> None:
    stream = decoder()
    stream.feed(chat_sse(chat_chunk({"content": "a"}), done=False))
    assert stream.feed(chat_sse(chat_chunk(finish="stop"), done=False)) == (b"", None, None)
    assert stream.feed(chat_sse(USAGE_CHUNK, done=False)) == (b"", None, None)
    step = stream.feed(b"data: [DONE]\n\n")
    assert b"content_block_stop" in step.forward and step.end is not None
    assert stream.feed(chat_sse(ROLE)) == stream.flush() == (b"", None, None)


def test_estimated_usage_can_be_shown() -> None:
    outcome = decode(chat_chunk({"content": "a"}, "stop"))
    assert outcome.end is not None
    assert b'"input_tokens":7,"output_tokens":1' in outcome.end.encode(usage=Usage(input_tokens=7, output_tokens=1))


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_a_thinking_block_and_never_inside_the_text(name: str) -> None:
    outcome = decode(
        chat_chunk({name: "Let me"}),
        chat_chunk({name: " see.", "content": "So: "}),
        chat_chunk({"content": "42"}),
        chat_chunk({name: "Or?"}),
        chat_chunk(finish="stop"),
    )
    assert blocks_of(outcome) == [("thinking", "Let me see."), ("text", "So: 42"), ("thinking", "Or?")]
    starts = [event["content_block"] for event in outcome.events() if event["type"] == "content_block_start"]
    assert starts[0] == {"type": "thinking", "thinking": "", "signature": ""}


def test_a_tool_call_in_fragments() -> None:
    outcome = decode(
        ROLE,
        chat_chunk({"content": "Let me see."}),
        call_chunk(0, "", call_id="call_1", name="get_weather"),
        call_chunk(0, '{"ci'),
        call_chunk(0, 'ty": "Oslo"}'),
        chat_chunk(finish="tool_calls"),
        USAGE_CHUNK,
    )
    assert blocks_of(outcome) == [("text", "Let me see."), ("tool_use", '{"city": "Oslo"}')]
    assert call_blocks(outcome) == [("call_1", "get_weather")]
    assert outcome.last_events()[0]["delta"]["stop_reason"] == "tool_use"
    fragments = [event["delta"] for event in outcome.events() if event["type"] == "content_block_delta"][1:]
    assert [fragment["partial_json"] for fragment in fragments] == ['{"ci', 'ty": "Oslo"}']


def test_fragments_are_streamed_as_they_come() -> None:
    stream = decoder()
    stream.feed(chat_sse(call_chunk(0, "", call_id="call_1", name="get_weather"), done=False))
    assert b'{\\"ci' in stream.feed(chat_sse(call_chunk(0, '{"ci'), done=False)).forward


def test_interleaved_calls_become_blocks_one_after_the_other() -> None:
    outcome = decode(
        call_chunk(0, "", call_id="call_a", name="a"),
        call_chunk(1, "", call_id="call_b", name="b"),
        call_chunk(0, '{"x": '),
        call_chunk(1, '{"y": '),
        chat_chunk({"content": "meanwhile"}),
        call_chunk(0, "1}"),
        call_chunk(1, "2}"),
        chat_chunk(finish="stop"),
    )
    assert blocks_of(outcome) == [("tool_use", '{"x": 1}'), ("tool_use", '{"y": 2}'), ("text", "meanwhile")]
    assert call_blocks(outcome) == [("call_a", "a"), ("call_b", "b")]
    assert outcome.last_events()[0]["delta"]["stop_reason"] == "tool_use"


def test_a_complete_call_gives_way_at_once() -> None:
    stream = decoder()
    stream.feed(chat_sse(call_chunk(0, '{"x": 1}', call_id="call_a", name="a"), done=False))
    step = stream.feed(chat_sse(call_chunk(1, '{"y": ', call_id="call_b", name="b"), done=False))
    assert b"content_block_stop" in step.forward and b"call_b" in step.forward and b"y" in step.forward


def test_calls_without_index_and_calls_that_share_one() -> None:
    def chunk(**call: Any) -> dict[str, Any]:
        return chat_chunk({"tool_calls": [call]})

    google = decode(
        chunk(index=0, id="1", function={"name": "a", "arguments": '{"x": 1}'}),
        chunk(index=0, id="2", function={"name": "b", "arguments": '{"y": 2}'}),
        chat_chunk(finish="stop"),
    )
    assert blocks_of(google) == [("tool_use", '{"x": 1}'), ("tool_use", '{"y": 2}')]
    no_index = decode(
        chunk(function={"name": "a", "arguments": "{}"}),
        chunk(function={"name": "a", "arguments": "{"}),
        chunk(function={"arguments": "}"}),
        chat_chunk(finish="stop"),
    )
    assert blocks_of(no_index) == [("tool_use", "{}"), ("tool_use", "{}")]
    repeated = decode(
        chunk(index=0, id="1", function={"name": "a", "arguments": "{"}),
        chunk(index=0, id="1", function={"name": "a", "arguments": "}"}),
        chat_chunk(finish="stop"),
    )
    assert blocks_of(repeated) == [("tool_use", "{}")]


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        ([""], ""),
        (["  ", ""], ""),
        (["nu", "ll"], ""),
        (['"{\\"a\\"', ': 1}"'], '{"a":1}'),
        (['""'], ""),
        ([" \n{", "}"], " \n{}"),
    ],
)
def test_odd_but_usable_arguments(pieces: list[str], text: str) -> None:
    first, *others = pieces
    chunks = [call_chunk(0, first, call_id="c", name="a"), *(call_chunk(0, piece) for piece in others)]
    assert blocks_of(decode(*chunks, chat_chunk(finish="tool_calls"))) == [("tool_use", text)]


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "{}{}", "text"])
def test_arguments_that_are_no_object_are_a_failure_unless_cut_off(arguments: str) -> None:
    chunk = call_chunk(0, arguments, call_id="c", name="a")
    assert isinstance(decode(chunk, chat_chunk(finish="tool_calls")).failure, UpstreamProtocolError)
    cut_off = decode(chunk, chat_chunk(finish="length"))
    assert cut_off.failure is None
    assert cut_off.last_events()[0]["delta"]["stop_reason"] == "max_tokens"


def test_ids_and_names_are_made_good() -> None:
    short = orjson.loads(ChatCodec().render_request(REQUEST, RouteTarget("up")).body)["tools"][1]["function"]["name"]
    outcome = decode(
        call_chunk(0, "{}", call_id="functions.a:0", name=short),
        call_chunk(1, "{}", name="b"),
        chat_chunk(finish="stop"),
    )
    assert call_blocks(outcome) == [("functions_a_0", LONG_NAME), ("toolu_0123456789abcdef_1", "b")]


@pytest.mark.parametrize(
    ("finish", "delta", "stop_reason"),
    [
        ("stop", {"content": "a"}, "end_turn"),
        ("length", {"content": "a"}, "max_tokens"),
        ("content_filter", {"content": "a"}, "refusal"),
        ("tool_calls", {"content": "a"}, "end_turn"),
        ("stop", {"refusal": "No."}, "refusal"),
    ],
)
def test_stop_reasons(finish: str, delta: dict[str, Any], stop_reason: str) -> None:
    outcome = decode(chat_chunk(delta), chat_chunk(finish=finish))
    assert outcome.last_events()[0]["delta"] == {"stop_reason": stop_reason, "stop_sequence": None}


def test_the_matched_stop_sequence() -> None:
    chunk = chat_chunk({"content": "a"}, "stop")
    chunk["choices"][0]["stop_reason"] = "END"
    delta = decode(chunk).last_events()[0]["delta"]
    assert delta == {"stop_reason": "stop_sequence", "stop_sequence": "END"}


def test_an_empty_reply_is_complete() -> None:
    outcome = decode(ROLE, chat_chunk(finish="stop"))
    assert [event["type"] for event in outcome.events()] == ["message_start"]
    assert outcome.end is not None


def test_comments_and_a_missing_done_are_tolerated() -> None:
    chunks = [chat_chunk({"content": "a"}), chat_chunk(finish="stop"), USAGE_CHUNK]
    expected = decode(*chunks).text()
    assert decode(*chunks, done=False).text() == expected
    stream = b": OPENROUTER PROCESSING\n\n" + chat_sse(*chunks).replace(b"\n", b"\r\n")
    assert run(decoder(), [stream]).text() == expected
    assert run(decoder(), [chat_sse(*chunks, done=False).rstrip(b"\n")]).text() == expected


def test_the_route_stays_open_until_a_choice_came() -> None:
    stream = decoder()
    stream.feed(b": PROCESSING\n\n" + chat_sse({"choices": [], "prompt_filter_results": []}, done=False))
    assert not stream.has_started
    stream.feed(chat_sse(ROLE, done=False))
    assert stream.has_started


def test_choices_that_nobody_asked_for_are_ignored() -> None:
    other = chat_chunk({"content": "other"}, "stop")
    other["choices"][0]["index"] = 1
    assert blocks_of(decode(chat_chunk({"content": "a"}), other, chat_chunk(finish="stop"))) == [("text", "a")]


TEXT = chat_chunk({"content": "Hello"})


@pytest.mark.parametrize(
    "payloads",
    [
        [],
        [b"{"],
        [b"<html>"],
        [b"[]"],
        [b"\xff\xfe"],
        [{"choices": {}}],
        [{"choices": [3]}],
        [{"choices": [{"delta": "a"}]}],
        [{"choices": [{"finish_reason": 3}]}],
        [chat_chunk({"tool_calls": {}})],
        [chat_chunk({"tool_calls": [3]})],
        [chat_chunk({"tool_calls": [{"function": 3}]})],
        [chat_chunk(finish="error")],
        [call_chunk(0, "{}"), chat_chunk(finish="stop")],  # A call without a name.
        [call_chunk(0, "{}", name="a"), call_chunk(1, "{}", name="b"), call_chunk(0, "{}")],  # More after its end.
    ],
)
@pytest.mark.parametrize("done", [True, False])
def test_what_breaks_a_stream(payloads: list[Any], done: bool) -> None:
    outcome = decode(TEXT, *payloads, done=done)
    assert isinstance(outcome.failure, UpstreamProtocolError)
    assert outcome.end is None
    assert blocks_of(outcome)[0] == ("text", "Hello")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (b'data: {"error": {"code": 502, "message": "provider of org-1 went away"}}\n\n', "upstream_error"),
        (b'data: {"error": {"code": 429, "message": "org-1"}}\n\n', "upstream_overloaded"),
        (b'data: {"error": "org-1"}\n\n', "upstream_error"),
        (b"event: error\ndata: org-1\n\n", "upstream_error"),
        (b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "error"}]}\n\n', "upstream_protocol_error"),
    ],
)
def test_an_error_inside_the_stream(error: bytes, code: str) -> None:
    outcome = run(decoder(), [chat_sse(TEXT, done=False) + error])
    assert isinstance(outcome.failure, UpstreamStreamError)
    assert outcome.failure.code == code
    assert "org-1" not in outcome.failure.client_message


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_blocks, "MAX_HELD_CHARS", 10_000)
    endless = [call_chunk(0, '{"a": "', call_id="c", name="a"), *[call_chunk(0, "x" * 100)] * 100]
    empty = [
        call_chunk(0, "{", call_id="c", name="a"),
        *[chat_chunk({"content": "x"}), chat_chunk({"reasoning": "y"})] * 100,
    ]
    many = [call_chunk(index, "{}", call_id=f"c{index}", name="a") for index in range(2000)]
    for chunks in (endless, empty, many):
        outcome = decode(*chunks)
        assert isinstance(outcome.failure, UpstreamProtocolError)
        assert "more than" in outcome.failure.reason


FULL = [
    ROLE,
    chat_chunk({"reasoning_content": "Let me see…"}),
    chat_chunk({"content": "Hello 😀\u2028"}),
    call_chunk(0, "", call_id="call_a", name="a"),
    call_chunk(1, '{"y"', call_id="call_b", name="b"),
    call_chunk(0, '{"x": 1}'),
    call_chunk(1, ": 2}"),
    chat_chunk(finish="tool_calls"),
    USAGE_CHUNK,
]


@given(CUTS)
def test_any_cut_gives_the_same_output(places: list[int]) -> None:
    assert run(decoder(), cut(chat_sse(*FULL), places)).text() == decode(*FULL).text()


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4),
    st.data(),
)
def test_calls_arrive_whole_however_their_fragments_are_mixed(values: list[str], data: st.DataObject) -> None:
    arguments = [orjson.dumps({"value": value}).decode() for value in values]
    pieces = [[text[i : i + 5] for i in range(0, len(text), 5)] for text in arguments]
    order = data.draw(st.permutations([index for index, parts in enumerate(pieces) for _ in parts]))
    chunks: list[dict[str, Any]] = [
        call_chunk(index, "", call_id=f"call_{index}", name=f"tool_{index}") for index in range(len(values))
    ]
    remaining = [list(parts) for parts in pieces]
    chunks += [call_chunk(index, remaining[index].pop(0)) for index in order]
    outcome = decode(*chunks, chat_chunk(finish="tool_calls"))
    assert blocks_of(outcome) == [("tool_use", text) for text in arguments]
    assert call_blocks(outcome) == [(f"call_{index}", f"tool_{index}") for index in range(len(values))]


CHUNKS = st.sampled_from(
    [
        *FULL,
        TEXT,
        {"choices": []},
        {"error": {}},
        chat_chunk(finish="length"),
        call_chunk(2, "nul"),
        call_chunk(0, "}"),
        call_chunk(0, "{", call_id="call_c", name="c"),
        {"choices": [{"index": 0}]},
        {"usage": {"prompt_tokens": -1}},
    ]
)


@given(st.lists(CHUNKS, max_size=15), CUTS)
def test_any_order_of_chunks_ends_once_and_alike_under_any_cut(chunks: list[dict[str, Any]], places: list[int]) -> None:
    whole = decode(*chunks)
    parts = run(decoder(), cut(chat_sse(*chunks), places))
    assert (whole.end is None) != (whole.failure is None)
    assert (whole.text(), str(whole.failure)) == (parts.text(), str(parts.failure))
    check_order(whole)


@given(st.binary(max_size=300))
def test_random_bytes_end_in_a_failure(stream: bytes) -> None:
    assert isinstance(run(decoder(), [stream]).failure, UpstreamProtocolError)
