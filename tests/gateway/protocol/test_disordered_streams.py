"""Streams of Messages servers that break the order of blocks, or characters in two, where their meaning is plain."""

from typing import Any

import orjson
import pytest

from gateway.protocol.chat.names import ToolNames
from gateway.protocol.chat.stream import ChatStreamDecoder
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.json.broken_text import HalfJoiner, mend
from gateway.protocol.messages.stream import MessagesStreamDecoder
from gateway.protocol.profile import UpstreamProfile
from tests.gateway.protocol.streams import (
    IDENTITY,
    MESSAGE_STOP,
    Outcome,
    block_start,
    block_stop,
    chat_chunk,
    message_delta,
    message_start,
    run,
    sse,
    text_delta,
)

END = [message_delta(output_tokens=7), MESSAGE_STOP]
TOOL = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}


def json_delta(index: int, text: str) -> dict[str, Any]:
    return {
        "type": "content_block_delta",
        "index": index,
        "delta": {"type": "input_json_delta", "partial_json": text},
    }


def decode(*payloads: dict[str, Any]) -> Outcome:
    return run(MessagesStreamDecoder(IDENTITY), [sse(*payloads)])


def numbered(index: int, events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**event, "index": index} for event in events]


ORDERLY = [block_start(0), text_delta(0, "Hi"), block_stop(0), block_start(1, TOOL), json_delta(1, "{}"), block_stop(1)]


@pytest.mark.parametrize(
    "payloads",
    [
        pytest.param(ORDERLY, id="in order"),
        pytest.param([*ORDERLY[:2], *ORDERLY[3:]], id="begun before the last was closed"),
        pytest.param([*ORDERLY[:2], *ORDERLY[3:5], block_stop(0), block_stop(1)], id="closed too late"),
        pytest.param(ORDERLY[:-1], id="left open"),
        pytest.param(
            [
                block_start(2),
                text_delta(2, "Hi"),
                block_stop(2),
                block_start(7, TOOL),
                json_delta(7, "{}"),
                block_stop(7),
            ],
            id="gaps",
        ),
        pytest.param(
            [
                block_start(0),
                text_delta(0, "Hi"),
                block_stop(0),
                block_start(0, TOOL),
                json_delta(0, "{}"),
                block_stop(0),
            ],
            id="one number for all",
        ),
        pytest.param(ORDERLY[1:], id="never begun"),
    ],
)
def test_blocks_are_put_in_order(payloads: list[dict[str, Any]]) -> None:
    outcome = decode(message_start(), *payloads, *END)
    assert outcome.failure is None
    assert outcome.events()[1:] == ORDERLY


def test_a_missing_message_start_is_made_up_for() -> None:
    outcome = decode(*ORDERLY, message_delta(input_tokens=5, output_tokens=7), MESSAGE_STOP)
    start, *rest = outcome.events()
    assert (start["message"]["id"], start["message"]["content"]) == (IDENTITY.message_id, [])
    assert (start["message"]["role"], start["message"]["type"]) == ("assistant", "message")
    assert rest == ORDERLY
    assert outcome.last_events()[0]["usage"]["input_tokens"] == 5


@pytest.mark.parametrize(
    "payloads",
    [
        [*ORDERLY[:2], block_start(1, TOOL), text_delta(0, "more"), block_stop(1)],
        [block_start(0, TOOL), block_start(1), json_delta(0, "{}")],
        [json_delta(0, "{}")],
    ],
)
def test_what_has_no_plain_meaning_stays_a_fault(payloads: list[dict[str, Any]]) -> None:
    assert isinstance(decode(message_start(), *payloads, *END).failure, UpstreamProtocolError)


def halves(name: str, kind: str, block: dict[str, Any]) -> bytes:
    """Return a stream whose emoji are cut in the middle: one within a delta each, one over two deltas."""
    texts = ["a\\ud83d", "\\ude00b", "c\\ud83d", "\\ude00\\ud83d\\ude00", "\\ude00", "d\\ud83d"]
    template = '{"type":"content_block_delta","index":0,"delta":{"type":"%s","%s":"%s"}}'
    events = [b"data: %b\n\n" % (template % (kind, name, text)).encode() for text in texts]
    return sse(message_start(), block_start(0, block)) + b"".join(events) + sse(block_stop(0), *END)


@pytest.mark.parametrize(
    ("name", "kind", "block"),
    [
        ("text", "text_delta", {"type": "text", "text": ""}),
        ("thinking", "thinking_delta", {"type": "thinking", "thinking": "", "signature": ""}),
        ("partial_json", "input_json_delta", TOOL),
    ],
)
def test_a_character_that_is_cut_in_two_is_joined(name: str, kind: str, block: dict[str, Any]) -> None:
    outcome = run(MessagesStreamDecoder(IDENTITY), [halves(name, kind, block)])
    assert outcome.failure is None and outcome.end is not None
    deltas = [event["delta"][name] for event in outcome.events() if event["type"] == "content_block_delta"]
    assert "".join(deltas) == "a😀bc😀😀\ufffdd\ufffd"
    assert [event["type"] for event in outcome.events()][-2:] == ["content_block_delta", "content_block_stop"]


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_a_character_that_is_cut_in_two_is_joined_from_chat(field: str) -> None:
    decoder = ChatStreamDecoder(IDENTITY, names=ToolNames([], 64), profile=UpstreamProfile(), stop_sequences=[])
    chunks = [orjson.dumps(chat_chunk({field: text})) for text in ("a?", "!b")]
    stream = b"".join(b"data: %b\n\n" % chunk for chunk in chunks)
    stream = stream.replace(b"?", b"\\ud83d").replace(b"!", b"\\ude00")
    stream += b"data: %b\n\ndata: [DONE]\n\n" % orjson.dumps(chat_chunk(finish="stop"))
    outcome = run(decoder, [stream])
    assert outcome.failure is None
    deltas = [event["delta"] for event in outcome.events() if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", delta.get("thinking")) for delta in deltas) == "a😀b"


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
def test_half_a_character_at_the_end_is_not_lost(field: str) -> None:
    decoder = ChatStreamDecoder(IDENTITY, names=ToolNames([], 64), profile=UpstreamProfile(), stop_sequences=[])
    chunks = [chat_chunk({field: "a?"}), chat_chunk(finish="length")]
    stream = b"".join(b"data: %b\n\n" % orjson.dumps(chunk) for chunk in chunks).replace(b"?", b"\\ud83d")
    outcome = run(decoder, [stream])
    assert outcome.failure is None
    deltas = [event["delta"] for event in outcome.events() if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", delta.get("thinking")) for delta in deltas) == "a\ufffd"


def test_bytes_that_are_no_utf8_are_replaced() -> None:
    odd = b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a\xe2\x82"}}\n\n'
    stream = sse(message_start(), block_start(0)) + odd + sse(block_stop(0), *END)
    outcome = run(MessagesStreamDecoder(IDENTITY), [stream])
    assert outcome.failure is None and outcome.events()[2]["delta"]["text"] == "a\ufffd"


def test_halves() -> None:
    joiner = HalfJoiner()
    assert [joiner.join(text) for text in ("\ud83d", "", "\ude00x", "\ude00")] == ["", "", "😀x", "\ufffd"]
    assert mend("\ud83d\ude00") == "😀"
