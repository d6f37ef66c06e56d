"""What carries nothing breaks no stream, and usage is read where proxies put it: behind the end of the reply."""

import orjson
import pytest

from gateway.protocol.chat.codec import ChatCodec
from gateway.protocol.codec import RouteTarget, StreamDecoder
from gateway.protocol.json.broken_text import load_json
from gateway.protocol.messages.codec import MessagesCodec
from gateway.protocol.usage_reading import UsageState
from gateway.protocol.whole_as_stream import is_whole_reply
from tests.gateway.protocol.streams import (
    IDENTITY,
    MESSAGE_STOP,
    block_start,
    block_stop,
    chat_chunk,
    chat_sse,
    message_delta,
    message_start,
    run,
    sse,
    text_delta,
)
from tests.gateway.protocol.test_chat_replies import REQUEST

USAGE = orjson.dumps({"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 12}})
LATE = b"data: " + USAGE + b"\n\n"
SAID = chat_sse(chat_chunk({"content": "Hello"}), chat_chunk(finish="stop"))


def chat_decoder() -> StreamDecoder:
    return ChatCodec().stream_decoder(REQUEST, RouteTarget("up"), IDENTITY)


def messages_decoder() -> StreamDecoder:
    return MessagesCodec().stream_decoder(REQUEST, RouteTarget("up"), IDENTITY)


@pytest.mark.parametrize("empty", [b"data:\n\n", b"data\n\n", b"event: ping\ndata:\n\n"])
def test_an_event_without_data_is_nothing(empty: bytes) -> None:
    chat = empty + chat_sse(chat_chunk({"content": "Hel"}), done=False) + empty
    chat += chat_sse(chat_chunk({"content": "lo"}), chat_chunk(finish="stop"))
    messages = empty + sse(message_start(), block_start(0), text_delta(0, "Hel")) + empty
    messages += sse(text_delta(0, "lo"), block_stop(0), message_delta(), MESSAGE_STOP)
    for decoder, stream in ((chat_decoder(), chat), (messages_decoder(), messages)):
        outcome = run(decoder, [stream])
        assert outcome.failure is None
        assert outcome.end is not None


def test_an_error_without_data_is_one() -> None:
    for decoder in (chat_decoder(), messages_decoder()):
        assert run(decoder, [b"event: error\ndata:\n\n"]).failure is not None


@pytest.mark.parametrize(
    "chunks", [[SAID + LATE], [SAID, LATE], [SAID, LATE[:20], LATE[20:]], [SAID, b": wait\n\n", LATE]]
)
def test_usage_behind_the_end_is_read(chunks: list[bytes]) -> None:
    decoder = chat_decoder()
    outcome = run(decoder, chunks)
    assert outcome.last_events()[0]["usage"]["output_tokens"] == 12
    assert decoder.reading().state is UsageState.FINAL


def test_who_says_nothing_behind_the_end_is_waited_for_until_it_closes() -> None:
    decoder = chat_decoder()
    assert not decoder.is_said
    assert decoder.feed(SAID).end is None
    assert decoder.is_said
    assert decoder.flush().end is not None
    assert decoder.reading().is_complete


def test_nothing_but_counts_is_read_behind_the_end() -> None:
    more = chat_sse(chat_chunk({"content": " and more"}), b"no JSON", b'{"error": "late"}', done=False)
    outcome = run(chat_decoder(), [SAID, more, LATE])
    assert b"more" not in outcome.forward
    assert outcome.failure is None
    assert outcome.end is not None


def test_usage_that_was_there_is_not_waited_for() -> None:
    early = chat_sse(chat_chunk({"content": "Hello"}), chat_chunk(finish="stop"), USAGE)
    assert chat_decoder().feed(early).end is not None


def test_the_end_without_a_reply_is_a_failure_at_once() -> None:
    assert chat_decoder().feed(b"data: [DONE]\n\n").failure is not None


def test_a_byte_order_mark_before_a_reply_is_no_part_of_it() -> None:
    assert load_json(b"\xef\xbb\xbf" + b'{"a": 1}') == ({"a": 1}, False)
    assert is_whole_reply(b"\xef\xbb\xbf" + b'{"a": 1}')
