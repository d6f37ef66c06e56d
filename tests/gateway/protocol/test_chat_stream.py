"""Streams of Chat Completions as Messages events: rows 2, 3, 4, 5, 7 and 8."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing.cost import Usage
from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import RouteTarget, StreamDecoder
from gateway.protocol.errors import UpstreamProtocolError, UpstreamStreamError
from gateway.protocol.usage_reading import UsageState
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
from tests.gateway.protocol.test_chat_replies import REQUEST
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
        [
            chat_chunk({"content": "a"}, usage={**USAGE, "completion_tokens": 1}),
            chat_chunk(finish="stop", usage={"completion_tokens": 12}),
        ],
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


@pytest.mark.parametrize(
    ("finish", "delta", "stop_reason"),
    [
        ("stop", {"content": "a"}, "end_turn"),
        ("length", {"content": "a"}, "max_tokens"),
        ("MAX_TOKENS", {"content": "a"}, "max_tokens"),
        ("model_length", {"content": "a"}, "max_tokens"),
        ("model_context_window_exceeded", {"content": "a"}, "max_tokens"),
        ("SAFETY", {"content": "a"}, "refusal"),
        ("sensitive", {"content": "a"}, "refusal"),
        ("content_filter", {"content": "a"}, "refusal"),
        ("tool_calls", {"content": "a"}, "end_turn"),
        ("stop", {"refusal": "No."}, "refusal"),
    ],
)
def test_stop_reasons(finish: str, delta: dict[str, Any], stop_reason: str) -> None:
    outcome = decode(chat_chunk(delta), chat_chunk(finish=finish))
    assert outcome.last_events()[0]["delta"] == {"stop_reason": stop_reason, "stop_sequence": None}


@pytest.mark.parametrize("finish", ["error", "insufficient_system_resource", "network_error", "abort", "ABORT"])
def test_a_reply_that_the_provider_broke_off_is_not_whole(finish: str) -> None:
    failure = decode(chat_chunk({"content": "a"}), chat_chunk(finish=finish), USAGE_CHUNK).failure
    assert isinstance(failure, UpstreamStreamError)
    assert failure.is_upstream_fault


def test_thinking_as_a_part_of_the_content() -> None:
    thought = {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]}]}
    outcome = decode(chat_chunk(thought), chat_chunk({"content": "42"}), chat_chunk(finish="stop"))
    assert blocks_of(outcome) == [("thinking", "Hm."), ("text", "42")]


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


def test_half_a_character_at_the_end_is_shown_as_one_that_is_missing() -> None:
    outcome = run(decoder(), [chat_sse(b'{"choices":[{"delta":{"content":"a\\ud83d"},"finish_reason":"stop"}]}')])
    assert (outcome.failure, blocks_of(outcome)) == (None, [("text", "a�")])


def test_a_whole_message_in_a_chunk_is_taken_unless_it_repeats_the_deltas() -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}
    assert blocks_of(decode(whole)) == [("text", "Hello")]
    assert blocks_of(decode(ROLE, chat_chunk({"content": "Hello"}), whole)) == [("text", "Hello")]


def test_the_only_call_of_the_old_form_is_a_tool_call() -> None:
    outcome = decode(
        chat_chunk({"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": ""}}),
        chat_chunk({"function_call": {"arguments": '{"at":'}}),
        chat_chunk({"function_call": {"arguments": '"the sky"}'}}),
        chat_chunk(finish="function_call"),
    )
    assert blocks_of(outcome) == [("tool_use", '{"at":"the sky"}')]
    assert outcome.last_events()[0]["delta"]["stop_reason"] == "tool_use"
