"""Whole replies and streams of a Messages upstream on their way to the client."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.pricing.cost import Usage
from gateway.protocol.errors import UpstreamProtocolError, UpstreamStreamError
from gateway.protocol.messages.response import decode_message, decode_token_count
from gateway.protocol.messages.stream import MessagesStreamDecoder
from gateway.protocol.sse import MAX_EVENT_BYTES, encode_event
from gateway.protocol.usage_reading import UsageState
from tests.gateway.protocol.streams import (
    CUTS,
    IDENTITY,
    MESSAGE_STOP,
    PING_EVENT,
    Outcome,
    block_start,
    block_stop,
    cut,
    message_delta,
    message_start,
    run,
    sse,
    text_delta,
)

COUNTS = ("input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
MESSAGE = {
    "id": "msg_upstream",
    "type": "message",
    "role": "assistant",
    "model": "upstream-large",
    "content": [{"type": "text", "text": "Hello!\x00"}, {"type": "novel", "x": None}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "container": None,
    "usage": {"input_tokens": 18, "output_tokens": 14, "service_tier": "standard"},
}
# One of each kind of block, as Anthropic streams them, with a ping and a signature.
FULL = [
    message_start(cache_creation_input_tokens=3, cache_read_input_tokens=4),
    block_start(0, {"type": "thinking", "thinking": "", "signature": ""}),
    PING_EVENT,
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "Let me see…"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "EqQB"}},
    block_stop(0),
    block_start(1),
    text_delta(1, "Hello 😀\u2028"),
    text_delta(1, " there"),
    block_stop(1),
    block_start(2, {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}),
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '{"city": '}},
    {"type": "content_block_delta", "index": 2, "delta": {"type": "input_json_delta", "partial_json": '"Oslo"}'}},
    block_stop(2),
    message_delta("tool_use", output_tokens=42),
    MESSAGE_STOP,
]


def decode(*payloads: dict[str, Any]) -> Outcome:
    return run(MessagesStreamDecoder(IDENTITY), [sse(*payloads)])


def test_a_whole_reply_gets_our_id_our_name_and_four_counts() -> None:
    decoded = decode_message(orjson.dumps(MESSAGE), IDENTITY)
    usage = {**MESSAGE["usage"], "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}  # type: ignore[dict-item]
    expected = {**MESSAGE, "id": IDENTITY.message_id, "model": IDENTITY.model_id, "usage": usage}
    assert decoded.encode() == orjson.dumps(expected)
    assert decoded.reading.usage == Usage(input_tokens=18, output_tokens=14)
    assert decoded.reading.upstream_message_id == "msg_upstream"
    assert decoded.reading.stop_reason == "end_turn"


@pytest.mark.parametrize(
    ("usage", "state"),
    [
        (None, UsageState.ABSENT),
        ({"input_tokens": None, "output_tokens": None}, UsageState.ABSENT),
        ({"input_tokens": -3, "output_tokens": "4"}, UsageState.UNUSABLE),
        (["x"], UsageState.UNUSABLE),
    ],
)
def test_a_client_always_gets_four_integers(usage: Any, state: UsageState) -> None:
    decoded = decode_message(orjson.dumps({**MESSAGE, "usage": usage}), IDENTITY)
    assert decoded.reading.state is state
    assert orjson.loads(decoded.encode())["usage"] == dict.fromkeys(COUNTS, 0)


def test_estimated_counts_and_a_cost_can_be_shown() -> None:
    estimated = Usage(
        input_tokens=1, output_tokens=2, cache_write_5m_tokens=3, cache_write_1h_tokens=4, cache_read_tokens=5
    )
    body = decode_message(orjson.dumps(MESSAGE), IDENTITY).encode(usage=estimated, extra_usage={"cost": "0.0001"})
    assert orjson.loads(body)["usage"] == {
        **dict(zip(COUNTS, (1, 2, 7, 5), strict=True)),
        "service_tier": "standard",
        "cost": "0.0001",
    }
    outcome = decode(*FULL)
    assert outcome.end is not None
    last = run(MessagesStreamDecoder(IDENTITY), [sse(*FULL)]).end
    assert last is not None
    assert b'"cost":"0.0001"' in last.encode(extra_usage={"cost": "0.0001"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad gateway</html>",
        b"[]",
        b'"overloaded"',
        b"{}",
        b'{"type": "error", "error": {"type": "api_error", "message": "x"}}',
        b'{"type": "message"}',
        b'{"type": "message", "content": []',
        b'{"type": "message", "content": [], "x": NaN}',
        b"\x1f\x8b\x08\x00",
    ],
)
def test_what_is_no_message(body: bytes) -> None:
    with pytest.raises(UpstreamProtocolError):
        decode_message(body, IDENTITY)


def test_token_counts() -> None:
    assert decode_token_count(b'{"input_tokens": 14}') == 14
    for body in (b"{}", b'{"input_tokens": -1}', b'{"input_tokens": true}', b"x", b'{"input_tokens": 1e3}'):
        with pytest.raises(UpstreamProtocolError):
            decode_token_count(body)


def test_a_full_stream_passes_verbatim_but_for_start_and_end() -> None:
    outcome = decode(*FULL)
    assert outcome.failure is None
    start, *rest = outcome.events()
    assert start["message"] == {
        **message_start()["message"],
        "id": IDENTITY.message_id,
        "model": IDENTITY.model_id,
        "usage": dict(zip(COUNTS, (25, 1, 3, 4), strict=True)),
    }
    assert rest == FULL[1:-2]
    for payload in FULL[3:5]:
        assert orjson.dumps(payload) in outcome.forward
    assert outcome.last_events() == [
        {
            "type": "message_delta",
            "delta": {"stop_reason": "tool_use", "stop_sequence": None},
            "usage": dict(zip(COUNTS, (25, 42, 3, 4), strict=True)),
        },
        MESSAGE_STOP,
    ]


def test_a_full_stream_is_read_to_its_usage() -> None:
    decoder = MessagesStreamDecoder(IDENTITY)
    run(decoder, [sse(*FULL)])
    reading = decoder.reading()
    assert reading.state is UsageState.FINAL
    assert reading.usage == Usage(input_tokens=25, output_tokens=42, cache_write_5m_tokens=3, cache_read_tokens=4)
    assert reading.delivered_bytes == len("Let me see…Hello 😀\u2028 there".encode()) + len('{"city": "Oslo"}')
    assert (reading.stop_reason, reading.upstream_message_id) == ("tool_use", "msg_upstream")


@given(CUTS)
def test_any_cut_gives_the_same_output(places: list[int]) -> None:
    stream = sse(*FULL)
    assert run(MessagesStreamDecoder(IDENTITY), cut(stream, places)).text() == decode(*FULL).text()


def test_framing_of_other_servers_is_tolerated() -> None:
    crlf = sse(*FULL).replace(b"\n", b"\r\n")
    bare = b"".join(b"data:%b\n\n: hm\n\n" % orjson.dumps(payload) for payload in FULL)
    unfinished = sse(*FULL).rstrip(b"\n")
    for stream in (crlf, bare, unfinished):
        assert run(MessagesStreamDecoder(IDENTITY), [stream]).text() == decode(*FULL).text()


def test_the_end_is_held_back_until_message_stop() -> None:
    decoder = MessagesStreamDecoder(IDENTITY)
    for payload in FULL[:-2]:
        assert decoder.feed(sse(payload)).end is None
    assert decoder.feed(sse(FULL[-2])) == (b"", None, None)
    step = decoder.feed(sse(FULL[-1]) + b"anything after it")
    assert step.forward == b"" and step.end is not None
    assert decoder.feed(sse(FULL[0])) == decoder.flush() == (b"", None, None)


def test_events_before_message_start_leave_the_route_open() -> None:
    decoder = MessagesStreamDecoder(IDENTITY)
    assert decoder.feed(sse(PING_EVENT)) == (b"", None, None)
    assert not decoder.has_started
    decoder.feed(sse(FULL[0]))
    assert decoder.has_started


def test_unknown_events_are_dropped_and_unknown_blocks_and_deltas_pass() -> None:
    block = block_start(0, {"type": "novel", "text": "x"})
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "novel_delta", "novel": [1]}}
    outcome = decode(
        message_start(),
        {"type": "own_event"},
        block,
        delta,
        block_stop(0),
        message_delta(output_tokens=1),
        MESSAGE_STOP,
    )
    assert outcome.events()[1:] == [block, delta, block_stop(0)]
    assert outcome.end is not None


def test_missing_usage_is_filled_in_for_the_client_and_reported_as_absent() -> None:
    start = message_start()
    del start["message"]["usage"]
    end = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}}
    decoder = MessagesStreamDecoder(IDENTITY)
    outcome = run(decoder, [sse(start, block_start(0), text_delta(0, "abc"), block_stop(0), end, MESSAGE_STOP)])
    assert outcome.events()[0]["message"]["usage"] == dict.fromkeys(COUNTS, 0)
    assert outcome.last_events()[0]["usage"] == dict.fromkeys(COUNTS, 0)
    assert outcome.last_events()[0]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    reading = decoder.reading()
    assert (reading.state, reading.delivered_bytes, reading.is_complete) == (UsageState.ABSENT, 3, True)


def test_several_message_deltas_become_one_with_the_last_counts() -> None:
    first = message_delta("end_turn", output_tokens=10, input_tokens=30)
    second = message_delta(None, output_tokens=15, server_tool_use={"web_search_requests": 1})
    decoder = MessagesStreamDecoder(IDENTITY)
    outcome = run(decoder, [sse(message_start(), first, second, MESSAGE_STOP)])
    assert [event["type"] for event in outcome.events()] == ["message_start"]
    held = outcome.last_events()[0]
    assert held["delta"]["stop_reason"] == "end_turn"
    assert [held["usage"][name] for name in COUNTS] == [30, 15, 0, 0]
    assert decoder.reading().usage == Usage(input_tokens=30, output_tokens=15, web_searches=1)


START, STOPPED = message_start(), [message_start(), block_start(0), block_stop(0)]


@pytest.mark.parametrize(
    "payloads",
    [
        [],
        [START],
        [START, block_start(0), text_delta(0, "cut")],
        [block_start(0)],
        [START, START],
        [{"type": "message_start"}],
        [{"type": "message_start", "message": {**START["message"], "content": [{"type": "text", "text": "x"}]}}],
        [START, block_start(1)],
        [START, block_start(-1)],
        [START, {"type": "content_block_start", "index": True, "content_block": {}}],
        [START, {"type": "content_block_start", "index": 0}],
        [START, block_start(0), block_start(1)],
        [START, text_delta(0, "x")],
        [START, block_start(0), text_delta(1, "x")],
        [START, block_start(0), {"type": "content_block_delta", "index": 0, "delta": "x"}],
        [START, block_start(0), {"type": "content_block_delta", "delta": {}}],
        [START, block_start(0), block_stop(1)],
        [*STOPPED, block_stop(0)],
        [*STOPPED, block_start(0)],
        [*STOPPED, message_delta(), block_start(1)],
        [*STOPPED, {"type": "message_delta"}],
        [message_delta()],
        [MESSAGE_STOP],
    ],
)
def test_a_broken_order_or_an_early_end_is_a_failure(payloads: list[dict[str, Any]]) -> None:
    outcome = decode(*payloads)
    assert isinstance(outcome.failure, UpstreamProtocolError)
    assert outcome.end is None


@pytest.mark.parametrize(
    "garbage",
    [
        b"data: {\n\n",
        b"data: []\n\n",
        b"data: [DONE]\n\n",
        b"data: \xff\xfe\n\n",
        b"data: " + b"x" * MAX_EVENT_BYTES + b"\n\n",
        b"event: content_block_delta\ndata: <html>\n\n",
    ],
)
def test_what_came_before_garbage_is_still_delivered(garbage: bytes) -> None:
    before = sse(message_start(), block_start(0), text_delta(0, "Hello"))
    outcome = run(MessagesStreamDecoder(IDENTITY), [before + garbage] if len(garbage) < 999 else [before, garbage])
    assert [event["type"] for event in outcome.events()] == [
        "message_start",
        "content_block_start",
        "content_block_delta",
    ]
    assert isinstance(outcome.failure, UpstreamProtocolError)


@pytest.mark.parametrize(
    ("error", "error_type", "code"),
    [
        ({"type": "overloaded_error", "message": "Overloaded"}, "overloaded_error", "upstream_overloaded"),
        ({"type": "rate_limit_error", "message": "org-123"}, "overloaded_error", "upstream_overloaded"),
        ({"type": "api_error", "message": "account 42"}, "api_error", "upstream_error"),
        ("a string", "api_error", "upstream_error"),
    ],
)
def test_an_error_event_of_the_upstream_is_a_failure_without_its_text(error: Any, error_type: str, code: str) -> None:
    outcome = decode(message_start(), {"type": "error", "error": error})
    assert isinstance(outcome.failure, UpstreamStreamError)
    assert (outcome.failure.error_type, outcome.failure.code) == (error_type, code)
    assert "42" not in outcome.failure.client_message and "org" not in outcome.failure.client_message


def test_an_error_event_that_is_no_json() -> None:
    outcome = run(MessagesStreamDecoder(IDENTITY), [b"event: error\ndata: upstream went away\n\n"])
    assert isinstance(outcome.failure, UpstreamStreamError)
    assert outcome.forward == b""


EVENTS = st.sampled_from(
    [
        START,
        block_start(0),
        block_start(1),
        text_delta(0, "a"),
        text_delta(1, "b"),
        block_stop(0),
        block_stop(1),
        message_delta(),
        MESSAGE_STOP,
        PING_EVENT,
        {"type": "novel"},
        {"type": "error", "error": {}},
        {},
    ]
)


@given(st.lists(EVENTS, max_size=15), CUTS)
def test_any_order_of_events_ends_once_and_alike_under_any_cut(
    payloads: list[dict[str, Any]], places: list[int]
) -> None:
    stream = b"".join(encode_event(payload.get("type", ""), orjson.dumps(payload)) for payload in payloads)
    whole = run(MessagesStreamDecoder(IDENTITY), [stream])
    parts = run(MessagesStreamDecoder(IDENTITY), cut(stream, places))
    assert (whole.end is None) != (whole.failure is None)
    assert (whole.text(), str(whole.failure)) == (parts.text(), str(parts.failure))
    check_order(whole)


def check_order(outcome: Outcome) -> None:
    """What the client gets is in order, whatever the upstream sent: only the end may be missing."""
    open_block, next_block = None, 0
    for place, event in enumerate(outcome.events()):
        assert (event["type"] == "message_start") == (place == 0)
        if event["type"] == "content_block_start":
            assert open_block is None
            assert event["index"] == next_block
            open_block, next_block = next_block, next_block + 1
        elif event["type"] in ("content_block_delta", "content_block_stop"):
            assert event["index"] == open_block
            open_block = None if event["type"] == "content_block_stop" else open_block
    assert outcome.end is None or open_block is None


@given(st.binary(max_size=300))
def test_random_bytes_end_in_a_failure(stream: bytes) -> None:
    assert isinstance(run(MessagesStreamDecoder(IDENTITY), [stream]).failure, UpstreamProtocolError)
