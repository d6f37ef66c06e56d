"""A whole reply where a stream was asked for, as servers give it that do not know `stream`. Pure.

The work is done and its provider charges for it, so the client gets it as the stream that it asked for, all at once.
"""

from collections.abc import Callable, Iterator
from typing import Any

from gateway.protocol.codec import DecodedMessage, StreamEnd
from gateway.protocol.errors import UnusableReplyError, UpstreamProtocolError
from gateway.protocol.json import exact as exact_json
from gateway.protocol.sse import BYTE_ORDER_MARK, encode_event
from gateway.protocol.stream_frame import StreamFrame
from gateway.protocol.usage_reading import UsageReading

MAX_REPLY_BYTES = 8 * 1024 * 1024  # Read on the event loop, as one event of a stream is, which has the same bound.
# The fields of a block that a stream brings in deltas, with the delta that brings each, and what the block has first.
_DELTAS: dict[str, dict[str, tuple[str, str]]] = {
    "text": {"text": ("text_delta", "text")},
    "thinking": {"thinking": ("thinking_delta", "thinking"), "signature": ("signature_delta", "signature")},
}
_TOOL_CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")


def is_whole_reply(first_chunk: bytes) -> bool:
    """True for what a body begins with that is no stream. Its content-type says too little: streams call themselves
    JSON too.
    """
    return first_chunk.removeprefix(BYTE_ORDER_MARK).lstrip()[:1] == b"{"


class WholeReplyDecoder(StreamFrame):
    """See codec.StreamDecoder. `decode` reads the whole body, as codec.UpstreamCodec.decode_response does."""

    def __init__(self, decode: Callable[[bytes], DecodedMessage], nothing_read: UsageReading) -> None:
        super().__init__()
        self._decode = decode
        self._reading = nothing_read
        self._parts: list[bytes] = []
        self._size = 0

    def reading(self) -> UsageReading:
        return self._reading

    def _take_bytes(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > MAX_REPLY_BYTES:
            self._parts.clear()
            raise UpstreamProtocolError(f"a whole reply of more than {MAX_REPLY_BYTES} bytes")
        self._parts.append(chunk)

    def _take_clean_end(self) -> StreamEnd:
        try:
            decoded = self._decode(b"".join(self._parts))
        except UnusableReplyError as error:  # It is billed, as what a stream that breaks off has brought is.
            self._reading = error.reading
            self._has_started = True
            raise
        finally:
            self._parts.clear()
        self._reading = decoded.reading
        message = exact_json.decode_exactly(decoded.encode())
        self._out.extend(_events_of(message))
        self._has_started = True
        delta = {name: message.get(name) for name in ("stop_reason", "stop_sequence")}
        return StreamEnd({"type": "message_delta", "delta": delta, "usage": message["usage"]})


def _events_of(message: dict[str, Any]) -> Iterator[bytes]:
    """Yield the events of a message but for the last two."""
    start = {**message, "content": [], "stop_reason": None, "stop_sequence": None}
    start["usage"] = {**message["usage"], "output_tokens": 0}
    yield _event("message_start", {"message": start})
    for index, block in enumerate(message["content"]):
        first, deltas = _in_deltas(block)
        yield _event("content_block_start", {"index": index, "content_block": first})
        for delta in deltas:
            yield _event("content_block_delta", {"index": index, "delta": delta})
        yield _event("content_block_stop", {"index": index})


def _in_deltas(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the block as it starts, and the deltas that make it whole. What no delta brings is there at the start."""
    kind = block.get("type")
    if kind in _TOOL_CALLS:
        text = exact_json.encode(block.get("input") or {}).decode()
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": text}]
    first, deltas = dict(block), []
    for name, (delta_type, field) in _DELTAS.get(str(kind), {}).items():
        if isinstance(block.get(name), str):
            first[name] = ""
            if block[name]:
                deltas.append({"type": delta_type, field: block[name]})
    citations = first.pop("citations", None) if kind == "text" else None
    for citation in citations if isinstance(citations, list) else ():
        deltas.append({"type": "citations_delta", "citation": citation})
    return first, deltas


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return encode_event(name, exact_json.encode({"type": name, **fields}))
