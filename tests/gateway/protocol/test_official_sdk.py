"""What clients get, read by Anthropic's own SDK: its parser and its accumulation of a stream are the referee."""

from collections.abc import Callable
from typing import Any

import httpx2
import orjson
import pytest
from anthropic import Anthropic
from anthropic.types import Message

from gateway.protocol.codec import MESSAGE_STOP, StreamDecoder
from gateway.protocol.messages.stream import MessagesStreamDecoder
from gateway.protocol.sse import PING, encode_error_event
from tests.gateway.protocol import test_chat_stream as chat
from tests.gateway.protocol import test_messages_replies as messages
from tests.gateway.protocol.streams import IDENTITY, chat_chunk, chat_sse, message_start, run, sse
from tests.gateway.protocol.test_chat_replies import call, reply
from tests.gateway.protocol.test_chat_replies import decode as decode_chat_reply


def client_reading(body: bytes, content_type: str) -> Anthropic:
    """Return the official client on a transport that answers every call with `body`."""
    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, content=body, headers={"content-type": content_type})
    )
    return Anthropic(
        api_key="none", base_url="http://gateway", http_client=httpx2.Client(transport=transport), max_retries=0
    )


def read_stream(stream: bytes) -> Message:
    client = client_reading(stream, "text/event-stream")
    arguments: Any = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    with client.messages.stream(**arguments) as events:
        return events.get_final_message()


@pytest.mark.parametrize(
    ("make_decoder", "upstream", "texts", "stop_reason", "counts"),
    [
        (
            lambda: MessagesStreamDecoder(IDENTITY),
            sse(*messages.FULL),
            [("thinking", "Let me see…"), ("text", "Hello 😀\u2028 there"), ("tool_use", {"city": "Oslo"})],
            "tool_use",
            (25, 42, 3, 4),
        ),
        (
            chat.decoder,
            chat_sse(*chat.FULL),
            [("thinking", "Let me see…"), ("text", "Hello 😀\u2028"), ("tool_use", {"x": 1}), ("tool_use", {"y": 2})],
            "tool_use",
            (20, 12, 0, 10),
        ),
        (chat.decoder, chat_sse(chat_chunk(finish="stop")), [], "end_turn", (0, 0, 0, 0)),
    ],
)
def test_a_stream_accumulates_to_the_message(
    make_decoder: Callable[[], StreamDecoder],
    upstream: bytes,
    texts: list[Any],
    stop_reason: str,
    counts: tuple[int, ...],
) -> None:
    outcome = run(make_decoder(), [upstream])
    start, rest = outcome.forward.split(b"\n\n", 1)
    message = read_stream(start + b"\n\n" + PING + rest + outcome.text()[len(outcome.forward) :])
    assert (message.id, message.model, message.stop_reason) == (IDENTITY.message_id, IDENTITY.model_id, stop_reason)
    dumped = [block.model_dump() for block in message.content]
    assert [(b["type"], b.get("text") or b.get("thinking") or b.get("input")) for b in dumped] == texts
    usage = message.usage
    assert (
        usage.input_tokens,
        usage.output_tokens,
        usage.cache_creation_input_tokens,
        usage.cache_read_input_tokens,
    ) == counts
    # Strict: every field that the SDK's types require is there, of the right type.
    Message.model_validate_json(orjson.dumps(message.to_dict()), strict=True)


def test_a_whole_reply_is_a_message() -> None:
    body = decode_chat_reply(
        reply({"content": "Hi", "reasoning": "hm", "tool_calls": [call(arguments='{"a": 1}')]}, usage=chat.USAGE)
    ).encode()
    message = Message.model_validate_json(body, strict=True)
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use"]
    assert message.usage.input_tokens == 20


def test_a_stream_that_ends_in_an_error_raises() -> None:
    error = encode_error_event(
        error_type="overloaded_error", code="upstream_overloaded", message="Busy.", request_id="r"
    )
    outcome = run(MessagesStreamDecoder(IDENTITY), [sse(message_start())])
    with pytest.raises(Exception, match="Busy") as caught:
        read_stream(outcome.forward + error)
    assert type(caught.value).__module__.startswith("anthropic")


def test_the_constant_end_is_what_the_encoder_writes() -> None:
    assert sse({"type": "message_stop"}) == MESSAGE_STOP
