"""Whole numbers of any size pass as they were written: orjson alone would round those beyond 64 bits."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import RouteTarget
from gateway.protocol.codecs import CODECS
from gateway.protocol.json.exact import may_be_rounded
from gateway.protocol.messages.request import parse_messages_request, render_upstream_body
from tests.gateway.protocol.streams import IDENTITY
from tests.gateway.protocol.test_messages_request import TOOL, body_of

HUGE = 123456789012345678901234567890
USE = {"type": "tool_use", "id": "t", "name": "get_weather", "input": {"number": HUGE, "small": -HUGE}}

NUMBERS = (
    st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**16, 1e16, 1e22, -0.0])
)
VALUES = st.recursive(
    NUMBERS | st.booleans() | st.none() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.booleans())
def test_any_value_reaches_a_messages_upstream_unchanged(value: Any, is_compact: bool) -> None:
    sent = body_of(future=value, tools=[{**TOOL, "input_schema": {"type": "object", "maximum": value}}])
    raw = json.dumps(sent, separators=(",", ":") if is_compact else None).encode()
    rendered = json.loads(render_upstream_body(parse_messages_request(raw), "up"))
    assert repr(rendered) == repr({**sent, "model": "up"})


def test_arguments_reach_a_chat_upstream_unchanged() -> None:
    raw = json.dumps(body_of(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": [USE]}]))
    call = ChatCodec().render_request(parse_messages_request(raw.encode()), RouteTarget("up"))
    function = json.loads(call.body)["messages"][1]["tool_calls"][0]["function"]
    assert json.loads(function["arguments"]) == USE["input"]


def reply_of(protocol: str) -> dict[str, Any]:
    if protocol == "messages":
        return {"type": "message", "content": [USE], "future": HUGE, "usage": {"input_tokens": 1, "output_tokens": 1}}
    function = {"name": "get_weather", "arguments": json.dumps(USE["input"])}
    message = {"content": None, "tool_calls": [{"id": "t", "type": "function", "function": function}]}
    return {"choices": [{"message": message, "finish_reason": "tool_calls"}]}


@pytest.mark.parametrize("protocol", CODECS)
def test_arguments_of_a_whole_reply_reach_the_client_unchanged(protocol: str) -> None:
    request = parse_messages_request(orjson.dumps(body_of(tools=[TOOL])))
    body = json.dumps(reply_of(protocol)).encode()
    decoded = CODECS[protocol].decode_response(request, RouteTarget("up"), body, IDENTITY)
    shown = json.loads(decoded.encode(extra_usage={"cost": "0.1"}))
    assert shown["content"] == [USE]
    assert shown.get("future", HUGE) == HUGE
    assert (shown["id"], shown["model"]) == (IDENTITY.message_id, IDENTITY.model_id)
    assert shown["usage"]["cost"] == "0.1"


def test_only_what_looks_like_a_large_number_is_read_again() -> None:
    for value in ("a text with 1e+12 in it", "1e+12x", "the+", [1.5, 2**63], {"e+": 1}):
        assert not may_be_rounded(orjson.dumps(value)), value
    for rounded in ([1.5e300], {"a": {"b": 2.0**64}}, ["+" * 63, 1e22], ["+" * 64, 1e22], ["+" * 200, {"a": 1e22}]):
        assert may_be_rounded(orjson.dumps(rounded))
