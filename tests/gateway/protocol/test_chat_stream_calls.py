"""Tool calls in a stream of Chat Completions: fragments by index, interleaved, odd, broken off, and bounded (row 3)."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.chat import blocks
from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.chat.names import CallIds, ToolNames
from gateway.protocol.codec import RouteTarget
from gateway.protocol.errors import UpstreamProtocolError
from tests.gateway.protocol.streams import Outcome, call_chunk, carrying, chat_chunk, chat_sse
from tests.gateway.protocol.test_chat_replies import LONG_NAME, REQUEST
from tests.gateway.protocol.test_chat_stream import ROLE, USAGE_CHUNK, blocks_of, decode, decoder


def call_blocks(outcome: Outcome) -> list[tuple[str, str]]:
    """Return id and name of each tool_use block."""
    starts = [event["content_block"] for event in outcome.events() if event["type"] == "content_block_start"]
    return [(block["id"], block["name"]) for block in starts if block["type"] == "tool_use"]


def test_a_tool_call_in_fragments() -> None:
    outcome = decode(
        ROLE,
        chat_chunk({"content": "Let me see."}),
        call_chunk(0, "", call_id="call_abcdef", name="get_weather"),
        call_chunk(0, '{"ci'),
        call_chunk(0, 'ty": "Oslo"}'),
        chat_chunk(finish="tool_calls"),
        USAGE_CHUNK,
    )
    assert blocks_of(outcome) == [("text", "Let me see."), ("tool_use", '{"city": "Oslo"}')]
    assert call_blocks(outcome) == [("call_abcdef", "get_weather")]
    assert outcome.last_events()[0]["delta"]["stop_reason"] == "tool_use"
    fragments = [event["delta"] for event in outcome.events() if event["type"] == "content_block_delta"][1:]
    assert [fragment["partial_json"] for fragment in fragments] == ['{"ci', 'ty": "Oslo"}']


def test_fragments_are_streamed_as_they_come() -> None:
    stream = decoder()
    stream.feed(chat_sse(call_chunk(0, "", call_id="call_abcdef", name="get_weather"), done=False))
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


def test_arguments_that_seem_to_end_at_every_piece_are_not_read_at_every_piece() -> None:
    """Each looks whole, and another call waits for it: to read all of it each time took the square of its length."""
    pieces = 6_000
    out: list[bytes] = []
    writer = blocks.BlockWriter(out, ToolNames([], 64), CallIds("msg_1"))
    writer.add_fragment(0, "call_a", "a", '{"x": "')
    for _ in range(pieces):
        writer.add_fragment(0, None, None, "}" * 100)
        writer.add_fragment(1, "call_b", "b", " ")
    assert writer._live is not None
    assert writer._live.checked_chars <= blocks.FREE_CHECK_CHARS + pieces * 100
    writer.add_fragment(0, None, None, '"}')
    writer.add_fragment(1, None, None, "{}")
    writer.finish(is_truncated=False)
    started = [event for event in out if b"content_block_start" in event]
    assert [b"call_a" in event for event in started] == [True, False]


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


@pytest.mark.parametrize("call_id", ["call_0", "", None])
@pytest.mark.parametrize("waits", [False, True])
def test_calls_that_share_index_and_id(call_id: str | None, waits: bool) -> None:
    """A name with arguments, behind whole ones, is another call: also of one that waits for its turn."""

    def call(name: str, arguments: str) -> dict[str, Any]:
        return chat_chunk(
            {"tool_calls": [{"index": 0, "id": call_id, "function": {"name": name, "arguments": arguments}}]}
        )

    chunks = [call("a", '{"x": 1}'), call("b", '{"y": 2}'), call("b", "{}"), chat_chunk(finish="stop")]
    before = [call_chunk(7, "{", call_id="first", name="first")] if waits else []
    outcome = decode(*before, *chunks[:-1], *([call_chunk(7, "}")] if waits else []), chunks[-1])
    assert outcome.failure is None
    calls = call_blocks(outcome)[len(before) :]
    assert [name for _, name in calls] == ["a", "b", "b"]
    assert [text for _, text in blocks_of(outcome)][len(before) :] == ['{"x": 1}', '{"y": 2}', "{}"]
    assert len({given for given, _ in call_blocks(outcome)}) == len(calls) + len(before)


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
    for finish in ("length", "max_tokens"):
        cut_off = decode(chunk, chat_chunk(finish=finish))
        assert cut_off.failure is None
        assert cut_off.last_events()[0]["delta"]["stop_reason"] == "max_tokens"


def test_ids_and_names_are_made_good() -> None:
    short = orjson.loads(ChatCodec().render_request(REQUEST, RouteTarget("up")).body)["tools"][1]["function"]["name"]
    outcome = decode(
        call_chunk(0, "{}", call_id="functions.a:0", name=short),
        call_chunk(1, "{}", name="b"),
        chat_chunk(finish="stop"),
    )
    assert call_blocks(outcome) == [(carrying("functions.a:0"), LONG_NAME), ("toolu_0123456789abcdef_1", "b")]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_HELD_CHARS", 10_000)
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


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=12), min_size=1, max_size=4),
    st.data(),
)
def test_calls_arrive_whole_however_their_fragments_are_mixed(values: list[str], data: st.DataObject) -> None:
    arguments = [orjson.dumps({"value": value}).decode() for value in values]
    pieces = [[text[i : i + 5] for i in range(0, len(text), 5)] for text in arguments]
    order = data.draw(st.permutations([index for index, parts in enumerate(pieces) for _ in parts]))
    chunks: list[dict[str, Any]] = [
        call_chunk(index, "", call_id=f"call_{index}abc", name=f"tool_{index}") for index in range(len(values))
    ]
    remaining = [list(parts) for parts in pieces]
    chunks += [call_chunk(index, remaining[index].pop(0)) for index in order]
    outcome = decode(*chunks, chat_chunk(finish="tool_calls"))
    assert blocks_of(outcome) == [("tool_use", text) for text in arguments]
    assert call_blocks(outcome) == [(f"call_{index}abc", f"tool_{index}") for index in range(len(values))]
