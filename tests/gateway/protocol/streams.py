"""Streams as upstreams send them, cut anywhere, and what comes out of a decoder."""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson
from hypothesis import strategies as st

from gateway.protocol.codec import ReplyIdentity, StreamDecoder, StreamEnd
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.sse import SseParser

IDENTITY = ReplyIdentity(message_id="msg_0123456789abcdef", model_id="acme/large-1.0")


@dataclass
class Outcome:
    """What a whole stream became."""

    forward: bytes
    end: StreamEnd | None
    failure: UpstreamProtocolError | None

    def events(self) -> list[dict[str, Any]]:
        return parse_events(self.forward)

    def last_events(self) -> list[dict[str, Any]]:
        assert self.end is not None
        return parse_events(self.end.encode())

    def text(self) -> bytes:
        return self.forward + (self.end.encode() if self.end else b"")


def parse_events(stream: bytes) -> list[dict[str, Any]]:
    """Parse what the client gets, and check that every event is named as its data says."""
    events = SseParser().feed(stream)
    payloads = [orjson.loads(event.data) for event in events]
    assert [event.event for event in events] == [payload["type"] for payload in payloads]
    return payloads


def run(decoder: StreamDecoder, chunks: Iterable[bytes], *, close: bool = True) -> Outcome:
    """Feed all chunks, close cleanly, and collect what was to be sent."""
    forward: list[bytes] = []
    end, failure = None, None
    steps = [decoder.feed(chunk) for chunk in chunks]
    if close:
        steps.append(decoder.flush())
    for step in steps:
        assert end is None or (step.forward, step.end, step.failure) == (b"", None, None)
        forward.append(step.forward)
        end = end or step.end
        failure = failure or step.failure
    return Outcome(b"".join(forward), end, failure)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut `stream` at the places, which may repeat and lie outside."""
    bounds = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(bounds)]


CUTS = st.lists(st.integers(min_value=0, max_value=10_000), max_size=30)


def carrying(call_id: str) -> str:
    """Return the id under which clients know a call that its provider gave this one."""
    return f"toolu_89abcdef_{base64.urlsafe_b64encode(call_id.encode()).rstrip(b'=').decode()}"


def sse(*payloads: dict[str, Any]) -> bytes:
    """Encode events of the Messages protocol as Anthropic does."""
    return b"".join(b"event: %b\ndata: %b\n\n" % (p["type"].encode(), orjson.dumps(p)) for p in payloads)


def chat_sse(*payloads: dict[str, Any] | bytes, done: bool = True) -> bytes:
    """Encode chunks of Chat Completions as OpenAI does."""
    lines = [p if isinstance(p, bytes) else orjson.dumps(p) for p in payloads]
    return b"".join(b"data: %b\n\n" % line for line in [*lines, *([b"[DONE]"] if done else [])])


def chat_chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "choices": [choice], **fields}


def call_chunk(index: int, arguments: str, *, call_id: str | None = None, name: str | None = None) -> dict[str, Any]:
    call: dict[str, Any] = {"index": index, "function": {"arguments": arguments}}
    if call_id is not None:
        call |= {"id": call_id, "type": "function"}
    if name is not None:
        call["function"]["name"] = name
    return chat_chunk({"tool_calls": [call]})


def message_start(**usage: Any) -> dict[str, Any]:
    message: dict[str, Any] = {
        "id": "msg_upstream",
        "type": "message",
        "role": "assistant",
        "model": "upstream-large",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 25, "output_tokens": 1, **usage},
    }
    return {"type": "message_start", "message": message}


def block_start(index: int, block: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "content_block_start", "index": index, "content_block": block or {"type": "text", "text": ""}}


def text_delta(index: int, text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": index, "delta": {"type": "text_delta", "text": text}}


def block_stop(index: int) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def message_delta(stop_reason: str | None = "end_turn", **usage: Any) -> dict[str, Any]:
    delta = {"stop_reason": stop_reason, "stop_sequence": None}
    return {"type": "message_delta", "delta": delta, "usage": usage or {"output_tokens": 15}}


MESSAGE_STOP = {"type": "message_stop"}
PING_EVENT = {"type": "ping"}
