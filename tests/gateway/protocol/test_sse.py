"""The SSE parser: the same events however the stream was cut, and only CR, LF and CRLF end a line."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocol.errors import SseTooLargeError
from gateway.protocol.sse import PING, SseEvent, SseParser, encode_error_event, encode_event
from tests.gateway.protocol.streams import CUTS, cut


def parse(stream: bytes, places: list[int] | None = None) -> list[SseEvent]:
    parser = SseParser()
    return [event for chunk in cut(stream, places or []) for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"event: a\ndata: 1\n\n", [SseEvent("a", b"1")]),
        (b"event: a\r\ndata: 1\r\n\r\n", [SseEvent("a", b"1")]),
        (b"event: a\rdata: 1\r\r", [SseEvent("a", b"1")]),
        (b"data: 1\n\ndata: 2\n\n", [SseEvent("", b"1"), SseEvent("", b"2")]),
        (b"data:1\n\n", [SseEvent("", b"1")]),
        (b"data:  1\n\n", [SseEvent("", b" 1")]),
        (b"data: 1\ndata: 2\n\n", [SseEvent("", b"1\n2")]),
        (b"data\n\n", [SseEvent("", b"")]),
        (b"data:\n\n", [SseEvent("", b"")]),
        (b"event: a\n\ndata: 1\n\n", [SseEvent("", b"1")]),
        (b"event: a\nevent\ndata: 1\n\n", [SseEvent("", b"1")]),
        (b": comment\n\ndata: 1\n:between\ndata: 2\n\n", [SseEvent("", b"1\n2")]),
        (b"id: 7\nretry: 10\nunknown: x\nnocolon\ndata: 1\n\n", [SseEvent("", b"1")]),
        (b"\xef\xbb\xbfdata: 1\n\n", [SseEvent("", b"1")]),
        (b"data: \xef\xbb\xbf1\n\n", [SseEvent("", b"\xef\xbb\xbf1")]),
        (
            "data: a\u2028b\u2029c\u0085d\x0b\x0ce\n\n".encode(),
            [SseEvent("", "a\u2028b\u2029c\u0085d\x0b\x0ce".encode())],
        ),
        (b"data: 1\n", []),
        (b"", []),
    ],
)
def test_events_of_a_stream(stream: bytes, events: list[SseEvent]) -> None:
    assert parse(stream) == events
    assert parse(stream, list(range(len(stream)))) == events


LINES = st.sampled_from(
    [b"data: x", b"data:", b"event: e", b":c", b"", b"", b"id: 1", "data: é€😀".encode(), b"data: \xff\xfe"]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=40), CUTS)
def test_any_cut_gives_the_same_events(lines: list[tuple[bytes, bytes]], places: list[int]) -> None:
    stream = b"".join(line + end for line, end in lines)
    assert parse(stream, places) == parse(stream)


@given(st.binary(max_size=400), CUTS)
def test_random_bytes_never_raise(stream: bytes, places: list[int]) -> None:
    assert parse(stream, places) == parse(stream)


def test_flush_returns_the_event_without_its_blank_line() -> None:
    for stream in (b"event: a\ndata: 1", b"event: a\ndata: 1\n", b"event: a\rdata: 1\r", b"event: a\r\ndata: 1\r\n"):
        parser = SseParser()
        assert parser.feed(stream) == []
        assert parser.flush() == [SseEvent("a", b"1")]
        assert parser.flush() == []


@pytest.mark.parametrize("chunk_bytes", [1, 7, 1000])
@pytest.mark.parametrize(
    "stream", [b"data: " + b"x" * 200, b"data:\n" * 60, b"id: 1\n" * 60, b":" + b"x" * 200, b"event: " + b"e" * 200]
)
def test_an_event_over_the_bound_is_refused(stream: bytes, chunk_bytes: int) -> None:
    parser = SseParser(max_event_bytes=100)
    chunks = [stream[start : start + chunk_bytes] for start in range(0, len(stream), chunk_bytes)]
    with pytest.raises(SseTooLargeError):
        list(map(parser.feed, chunks))


def test_the_bound_is_for_one_event_not_for_the_stream() -> None:
    parser = SseParser(max_event_bytes=100)
    for _ in range(50):
        assert parser.feed(b": a comment of some length\n" * 3 + b"data: " + b"x" * 60 + b"\n\n") == [
            SseEvent("", b"x" * 60)
        ]


def test_an_encoded_event_reads_back() -> None:
    assert encode_event("a", b'{"b":1}') == b'event: a\ndata: {"b":1}\n\n'
    for data in (b'{"b":1}', b"{\n}", "\u2028 é".encode()):
        assert parse(encode_event("a", data)) == [SseEvent("a", data)]
    assert parse(encode_event("a", b"{\r\n}")) == [SseEvent("a", b"{\n}")]


def test_ping_and_error_events() -> None:
    assert parse(PING) == [SseEvent("ping", b'{"type": "ping"}')]
    [event] = parse(encode_error_event(error_type="api_error", code="c", message="m\n\u2028", request_id="req_1"))
    assert event.event == "error"
    assert orjson.loads(event.data) == {
        "type": "error",
        "error": {"type": "api_error", "message": "m\n\u2028", "code": "c"},
        "request_id": "req_1",
    }
