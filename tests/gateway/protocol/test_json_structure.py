"""What is refused before it is parsed, and that nothing real is."""

import json
import random
import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.protocol.errors import InvalidRequestError
from gateway.protocol.json.structure import (
    MAX_ESCAPES,
    MAX_EXACT_BYTES,
    MAX_STRUCTURE,
    MAX_WIDE_BYTES,
    PIECE_BYTES,
    TooComplexError,
    check_structure,
)
from gateway.protocol.messages.request import parse_messages_request

MEBIBYTE = 1024**2
TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[,:\[{]', re.DOTALL)


def many(item: bytes, size: int = MEBIBYTE) -> bytes:
    return b'{"a":[' + b",".join([item] * (size // (len(item) + 1))) + b"]}"


DENSE = {
    "tiny integers": many(b"1"),
    "integers of 64 digits": many(b"7" * 64, 32 * MEBIBYTE),
    "integers of 4,000 digits": many(b"7" * 4_000, 32 * MEBIBYTE),
    "empty lists": many(b"[]"),
    "empty objects": many(b"{}"),
    "one key each": many(b'{"a":1}'),
    "many keys": b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b"}",
    "the same key": b"{" + b",".join([b'"a":1'] * 200_000) + b"}",
    "empty texts": many(b'""'),
    "escaped quotes between": many(rb'"\""', 2 * MEBIBYTE),
    "backslashes between": many(rb'"\\"', 2 * MEBIBYTE),
    "blocks": many(b'{"type":"text","text":"a"}', 4 * MEBIBYTE),
    "messages": many(b'{"role":"user","content":"a"}', 4 * MEBIBYTE),
    "10 million levels": b"[" * 10_000_000,
    "10 million levels of objects": b'{"a":' * 10_000_000,
    "escapes": b'{"a":"' + rb"\u0000" * (MAX_ESCAPES + 1) + b'"}',
    "escaped backslashes": b'{"a":"' + rb"\\" * MAX_ESCAPES + b'"}',
    "half surrogates": b'{"a":"' + rb"\ud83d" * (MAX_ESCAPES + 1) + b'"}',
    "one emoji at the end of much text": b'{"a":"' + b"a" * MAX_WIDE_BYTES + "😀".encode() + b'"}',
    "one emoji, escaped, at the end of much text": b'{"a":"' + b"a" * MAX_WIDE_BYTES + rb"\ud83d\ude00" + b'"}',
    "one emoji in each of many texts": many(b'"' + b"a" * 50_000 + "😀".encode() + b'"', MAX_WIDE_BYTES + MEBIBYTE),
    "one number beyond 64 bits in much text": b'{"a":1' + b"0" * 19 + b',"b":"' + b"a" * MAX_EXACT_BYTES + b'"}',
}


@pytest.mark.parametrize("raw", DENSE.values(), ids=DENSE.keys())
def test_dense_json_is_refused_before_it_is_parsed(raw: bytes) -> None:
    with pytest.raises(TooComplexError):
        check_structure(raw)
    with pytest.raises(InvalidRequestError) as refusal:
        parse_messages_request(raw)
    assert refusal.value.code == "body_too_complex"


def text_message(*blocks: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def image(size: int) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * size}}


def tool(number: int) -> dict[str, Any]:
    properties = {f"field_{n}": {"type": "string", "description": "It says, [so]: {much}"} for n in range(60)}
    return {"name": f"tool_{number}", "input_schema": {"type": "object", "properties": properties}}


def turns(count: int) -> list[dict[str, Any]]:
    called = {"type": "tool_use", "id": "toolu_1", "name": "tool_1", "input": {"path": "a.py", "lines": [1, 2]}}
    told = {"type": "tool_result", "tool_use_id": "toolu_1", "content": 'x = {"a": [1, 2, 3], "b": "\\n😀"}\n' * 50}
    return [each for _ in range(count) for each in ({"role": "assistant", "content": [called]}, text_message(told))]


REAL = {
    "26 tools": {"messages": [text_message({"type": "text", "text": "Hi"})], "tools": [tool(n) for n in range(26)]},
    "2,000 turns of an agent, 4 MB": {"messages": turns(2_000), "tools": [tool(n) for n in range(26)]},
    "31 MiB of images, and emoji": {
        "messages": [
            text_message(image(15 * MEBIBYTE), {"type": "text", "text": "😀, [so]: {much}"}, image(15 * MEBIBYTE))
        ]
    },
    "6 MiB of code": {
        "messages": [text_message({"type": "text", "text": 'if (a[0]) { b("c", {d: 1}); }\n' * 200_000})]
    },
    "a million characters of Chinese": {"messages": [text_message({"type": "text", "text": "你好世界" * 250_000})]},
    "numbers beyond 64 bits": {"messages": turns(1), "metadata": {"numbers": [2**70] * 1_000}},
}


@pytest.mark.parametrize("is_ascii", [False, True])
@pytest.mark.parametrize("fields", REAL.values(), ids=REAL.keys())
def test_what_real_clients_send_passes(fields: dict[str, Any], is_ascii: bool) -> None:
    raw = json.dumps({"model": "m", "max_tokens": 5, **fields}, ensure_ascii=is_ascii).encode()
    check_structure(raw)
    assert parse_messages_request(raw).body["messages"] == fields["messages"]


def structure_of(raw: bytes) -> int:
    return sum(not token.startswith(b'"') for token in TOKEN.findall(raw))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_count_is_exact_however_strings_fall_on_pieces(seed: int) -> None:
    """Text is filled up to the limit with structure; one more is too much."""
    chance = random.Random(seed)
    texts = ["".join(chance.choices('a,:[{"\\\n', k=chance.randrange(PIECE_BYTES))) for _ in range(4)]
    raw = orjson.dumps(texts)
    rest = MAX_STRUCTURE - structure_of(raw) - 1
    whole = raw[:-1] + b",1" * rest + b"]"
    assert structure_of(whole) == MAX_STRUCTURE - 1
    check_structure(raw[:-1] + b",1" * (rest + 1) + b"]")
    with pytest.raises(TooComplexError):
        check_structure(raw[:-1] + b",1" * (rest + 2) + b"]")


@settings(max_examples=40, deadline=None)
@given(place=st.integers(PIECE_BYTES - 30, PIECE_BYTES + 30))
def test_a_large_number_is_found_where_two_pieces_meet(place: int) -> None:
    raw = b'{"a":"' + b"a" * (place - 9) + b'",' + b'"b":' + b"1" * 20 + b',"c":"' + b"c" * MAX_EXACT_BYTES + b'"}'
    with pytest.raises(TooComplexError, match="64 bits"):
        check_structure(raw)
