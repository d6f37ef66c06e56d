"""Whole replies of Chat Completions as messages, and their usage: rows 1, 3, 5 and 7."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing.cost import Usage
from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import DecodedMessage, RouteTarget
from gateway.protocol.errors import UpstreamProtocolError, UpstreamStreamError
from gateway.protocol.messages.request import parse_messages_request
from gateway.protocol.profile import UpstreamProfile
from gateway.protocol.usage_reading import UsageState
from tests.gateway.protocol.streams import IDENTITY, carrying
from tests.gateway.protocol.test_messages_request import TOOL, body_of

LONG_NAME = "mcp__" + "a" * 90
REQUEST = parse_messages_request(
    orjson.dumps(body_of(tools=[TOOL, {**TOOL, "name": LONG_NAME}], stop_sequences=["END"]))
)


def reply(message: Any, finish: Any = "stop", *, usage: Any = None, **choice: Any) -> bytes:
    body = {"id": "chatcmpl-1", "choices": [{"index": 0, "message": message, "finish_reason": finish, **choice}]}
    return orjson.dumps(body if usage is None else {**body, "usage": usage})


def decode(body: bytes, profile: UpstreamProfile | None = None) -> DecodedMessage:
    return ChatCodec().decode_response(REQUEST, RouteTarget("up", profile or UpstreamProfile()), body, IDENTITY)


def call(name: str = "get_weather", arguments: Any = "{}", call_id: Any = "call_abcdef") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def test_a_text() -> None:
    decoded = decode(
        reply({"role": "assistant", "content": "Hello!\x00"}, usage={"prompt_tokens": 9, "completion_tokens": 3})
    )
    assert orjson.loads(decoded.encode()) == {
        "id": IDENTITY.message_id,
        "type": "message",
        "role": "assistant",
        "model": IDENTITY.model_id,
        "content": [{"type": "text", "text": "Hello!\x00"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 9,
            "output_tokens": 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        },
    }
    reading = decoded.reading
    assert (reading.state, reading.usage) == (UsageState.FINAL, Usage(input_tokens=9, output_tokens=3))
    assert (reading.stop_reason, reading.upstream_message_id, reading.delivered_bytes) == ("end_turn", "chatcmpl-1", 7)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_becomes_a_thinking_block_before_the_text(name: str) -> None:
    decoded = decode(reply({"content": "42", name: "Six times seven"}))
    assert decoded.message["content"] == [
        {"type": "thinking", "thinking": "Six times seven", "signature": ""},
        {"type": "text", "text": "42"},
    ]


def test_content_in_parts_and_no_content() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "other"}, "b", {"text": "c"}, {"type": "output_text", "text": "d"}]
    assert decode(reply({"content": parts})).message["content"] == [{"type": "text", "text": "abcd"}]
    assert decode(reply({"content": {"type": "text", "text": "a"}})).message["content"] == [
        {"type": "text", "text": "a"}
    ]
    empties: tuple[Any, ...] = (None, "", [])
    for empty in empties:
        assert decode(reply({"content": empty})).message["content"] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 1}', {"a": 1}),
        ("", {}),
        (" \n", {}),
        ("null", {}),
        (None, {}),
        ({"a": 1}, {"a": 1}),
        ('"{\\"a\\": 1}"', {"a": 1}),
        ('""', {}),
    ],
)
def test_arguments_become_an_object(arguments: Any, expected: dict[str, Any]) -> None:
    decoded = decode(reply({"tool_calls": [call(arguments=arguments)]}, "tool_calls"))
    assert decoded.message["content"] == [
        {"type": "tool_use", "id": "call_abcdef", "name": "get_weather", "input": expected}
    ]
    assert decoded.message["stop_reason"] == "tool_use"


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "3", "{}{}", '"text"'])
def test_arguments_that_are_no_object_are_the_upstreams_fault_unless_cut_off(arguments: str) -> None:
    with pytest.raises(UpstreamProtocolError):
        decode(reply({"tool_calls": [call(arguments=arguments)]}, "tool_calls"))
    cut_off = decode(reply({"tool_calls": [call(arguments=arguments)]}, "length"))
    assert (cut_off.message["content"][0]["input"], cut_off.message["stop_reason"]) == ({}, "max_tokens")


def test_ids_are_made_acceptable_and_unique_and_names_are_restored() -> None:
    short = orjson.loads(ChatCodec().render_request(REQUEST, RouteTarget("up")).body)["tools"][1]["function"]["name"]
    calls = [
        call(short, call_id="functions.get:0"),
        call(call_id=None),
        call(call_id="functions.get:0"),
        call(call_id=""),
    ]
    blocks = decode(reply({"tool_calls": calls})).message["content"]
    assert [block["id"] for block in blocks] == [
        carrying("functions.get:0"),
        "toolu_0123456789abcdef_1",
        "toolu_0123456789abcdef_2",
        "toolu_0123456789abcdef_3",
    ]
    assert blocks[0]["name"] == LONG_NAME


@pytest.mark.parametrize(
    ("finish", "message", "stop_reason"),
    [
        ("stop", {"content": "a"}, "end_turn"),
        ("length", {"content": "a"}, "max_tokens"),
        ("content_filter", {"content": "a"}, "refusal"),
        ("tool_calls", {"tool_calls": [call()]}, "tool_use"),
        ("stop", {"tool_calls": [call()]}, "tool_use"),
        ("function_call", {"tool_calls": [call()]}, "tool_use"),
        ("tool_calls", {"content": "but none came"}, "end_turn"),
        ("eos", {"content": "a"}, "end_turn"),
        (None, {"content": "a"}, "end_turn"),
        ("stop", {"content": None, "refusal": "I cannot."}, "refusal"),
    ],
)
def test_stop_reasons(finish: Any, message: dict[str, Any], stop_reason: str) -> None:
    assert decode(reply(message, finish)).message["stop_reason"] == stop_reason


def test_a_refusal_is_shown_as_text() -> None:
    assert decode(reply({"content": None, "refusal": "No."})).message["content"] == [{"type": "text", "text": "No."}]


@pytest.mark.parametrize("name", ["stop_reason", "matched_stop"])
def test_the_matched_stop_sequence_where_the_upstream_says_it(name: str) -> None:
    message = decode(reply({"content": "a"}, **{name: "END"})).message
    assert (message["stop_reason"], message["stop_sequence"]) == ("stop_sequence", "END")
    assert decode(reply({"content": "a"}, **{name: 128009})).message["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("usage", "profile", "expected"),
    [
        ({"prompt_tokens": 9, "completion_tokens": 0}, {}, Usage(input_tokens=9)),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": None}, {}, Usage(9, 3)),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}},
            {},
            Usage(input_tokens=5, output_tokens=3, cache_read_tokens=4),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 0}},
            {},
            Usage(input_tokens=9, output_tokens=3),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": None}},
            {},
            Usage(input_tokens=9, output_tokens=3),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_cache_hit_tokens": 4, "prompt_cache_miss_tokens": 5},
            {},
            Usage(input_tokens=5, output_tokens=3, cache_read_tokens=4),
        ),
        (
            {
                "prompt_tokens": 9,
                "completion_tokens": 3,
                "prompt_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 2},
            },
            {},
            Usage(input_tokens=3, output_tokens=3, cache_write_5m_tokens=2, cache_read_tokens=4),
        ),
        # Reasoning is inside the completion already.
        (
            {"prompt_tokens": 9, "completion_tokens": 30, "completion_tokens_details": {"reasoning_tokens": 20}},
            {},
            Usage(input_tokens=9, output_tokens=30),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 10, "completion_tokens_details": {"reasoning_tokens": 20}},
            {"reasoning_outside_completion": True},
            Usage(input_tokens=9, output_tokens=30),
        ),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 40}},
            {"cached_outside_prompt": True},
            Usage(input_tokens=9, output_tokens=3, cache_read_tokens=40),
        ),
    ],
)
def test_usage_becomes_disjoint(usage: dict[str, Any], profile: dict[str, Any], expected: Usage) -> None:
    decoded = decode(reply({"content": "a"}, usage=usage), UpstreamProfile(**profile))
    assert (decoded.reading.state, decoded.reading.usage) == (UsageState.FINAL, expected)
    shown = decoded.message["usage"]
    assert shown["input_tokens"] == expected.input_tokens
    assert shown["output_tokens"] == expected.output_tokens
    assert shown["cache_creation_input_tokens"] == expected.cache_write_5m_tokens
    assert shown["cache_read_input_tokens"] == expected.cache_read_tokens


@pytest.mark.parametrize(
    ("usage", "state"),
    [
        (None, UsageState.ABSENT),
        ({}, UsageState.ABSENT),
        ({"prompt_tokens": 9}, UsageState.PARTIAL),
        ({"prompt_tokens": -9, "completion_tokens": 3}, UsageState.UNUSABLE),
        ({"prompt_tokens": 9, "completion_tokens": "3"}, UsageState.UNUSABLE),
        ({"prompt_tokens": True, "completion_tokens": 3}, UsageState.UNUSABLE),
        ({"prompt_tokens": 10**12, "completion_tokens": 3}, UsageState.UNUSABLE),
        ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": []}, UsageState.UNUSABLE),
        (
            {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 10}},
            UsageState.UNUSABLE,
        ),
        ("many", UsageState.UNUSABLE),
    ],
)
def test_usage_that_is_missing_or_cannot_be_true(usage: Any, state: UsageState) -> None:
    decoded = decode(reply({"content": "abc"}, usage=usage))
    assert (decoded.reading.state, decoded.reading.delivered_bytes) == (state, 3)
    assert decoded.reading.has_output is False
    assert all(type(count) is int for count in decoded.message["usage"].values())


def test_what_was_said_of_one_side_only_counts_for_that_side() -> None:
    decoded = decode(reply({"content": "abc"}, usage={"completion_tokens": 30}))
    reading = decoded.reading
    assert (reading.state, reading.has_input, reading.has_output) == (UsageState.PARTIAL, False, True)
    assert reading.usage == Usage(output_tokens=30)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": {}}',
        b'{"choices": [3]}',
        b'{"choices": [{"message": "a"}]}',
        b'{"choices": [{"delta": {}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"function": {}}]}}]}',
        b'{"choices": [{"message": {"tool_calls": [{"function": {"name": 3}}]}}]}',
        b'{"error": {"message": "quota"}}',
        b'{"choices": [{"message": {"content": ""}, "finish_reason": "error"}]}',
    ],
)
def test_what_is_no_reply(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        decode(body)


def test_an_error_in_a_200_is_told_apart() -> None:
    with pytest.raises(UpstreamStreamError) as caught:
        decode(b'{"error": {"code": 429, "message": "key 17 is rate limited"}}')
    assert (caught.value.error_type, caught.value.code) == ("overloaded_error", "upstream_overloaded")
    assert "17" not in caught.value.client_message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**10) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["content", "tool_calls", "function", "name", "arguments", "id", "type", "text"]), inner
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON, JSON)
def test_any_reply_is_a_message_or_a_documented_error(message: Any, finish: Any, usage: Any) -> None:
    try:
        decoded = decode(reply(message, finish, usage=usage))
    except UpstreamProtocolError:
        return
    assert orjson.loads(decoded.encode())["type"] == "message"
