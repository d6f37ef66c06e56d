"""A stream of the Messages protocol on its way from the upstream to the client. Pure.

Data of events passes as it came, in framing of our own (an `event:` line always). Rewritten are `message_start` (id,
model, counts) and `message_delta` (all four counts, the input's merged in from the start, since some clients read them
nowhere else), the numbers of blocks that come out of order (see block_order), and texts with characters cut in two (see
broken_text). Events of unknown types are dropped: the AI SDK fails on them. Blocks and deltas of unknown types pass.
`message_delta` is held back with `message_stop`, so that nothing looks complete before its hold is closed.
"""

from typing import Any

import orjson

from gateway.protocol.block_order import BlockOrder
from gateway.protocol.codec import ReplyIdentity, StreamEnd
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.json.broken_escapes import EscapeMender
from gateway.protocol.json.broken_text import HalfJoiner, mend_all
from gateway.protocol.messages.response import load_event, rewrite_message
from gateway.protocol.messages.usage import COUNT_FIELDS, MessagesUsageReader
from gateway.protocol.sse import PING, SseEvent, encode_event
from gateway.protocol.stream_frame import StreamFrame
from gateway.protocol.upstream_errors import read_stream_error
from gateway.protocol.usage_reading import UsageReading

ARGUMENTS = "partial_json"
TEXT_FIELDS = ("text", "thinking", ARGUMENTS)


class MessagesStreamDecoder(StreamFrame):
    """See codec.StreamDecoder."""

    def __init__(self, identity: ReplyIdentity) -> None:
        super().__init__()
        self._identity = identity
        self._usage = MessagesUsageReader()
        self._blocks = BlockOrder()
        self._text = HalfJoiner()  # Of the block that began last.
        self._text_delta: dict[str, str] = {}  # Its latest delta that held halves, without its text.
        self._escapes = EscapeMender()  # Of its arguments.
        self._message_delta: dict[str, Any] | None = None

    def reading(self) -> UsageReading:
        return self._usage.reading()

    def _take_clean_end(self) -> StreamEnd:
        raise UpstreamProtocolError("the stream ended before message_stop")

    def _take_event(self, event: SseEvent) -> StreamEnd | None:
        if event.event == "error":
            raise read_stream_error(event.data)
        payload, may_hold_halves = load_event(event.data)
        event_type = payload.get("type")
        if event_type == "content_block_delta":
            self._take_block_delta(payload, event.data, may_hold_halves=may_hold_halves)
            return None
        if may_hold_halves:
            payload = mend_all(payload)
            event = event._replace(data=orjson.dumps(payload))
        if event_type == "content_block_start":
            self._take_block_start(payload, event.data)
        elif event_type == "content_block_stop":
            self._take_block_stop(payload, event.data)
        elif event_type == "message_start":
            self._out.append(self._take_message_start(payload))
        elif event_type == "message_delta":
            self._take_message_delta(payload)
        elif event_type == "message_stop":
            return self._take_message_stop()
        elif event_type == "ping" and self._has_started:
            self._out.append(PING)
        elif event_type == "error":
            raise read_stream_error(event.data)
        return None

    def _take_message_start(self, payload: dict[str, Any]) -> bytes:
        message = payload.get("message")
        if self._has_started or not isinstance(message, dict):
            raise UpstreamProtocolError("a second message_start, or one without a message")
        if message.get("content"):
            raise UpstreamProtocolError("a message_start that has content already")
        self._usage.read_start(message)
        rewrite_message(message, self._identity)
        message.setdefault("type", "message")
        message["content"] = []
        self._has_started = True
        return encode_event("message_start", orjson.dumps(payload))

    def _take_block_start(self, payload: dict[str, Any], data: bytes) -> None:
        block = payload.get("content_block")
        if self._message_delta is not None or not isinstance(block, dict):
            raise UpstreamProtocolError("content_block_start out of place, or without its block")
        before = self._blocks.start(payload)
        if not self._has_started:  # The server forgot to say it, and what it says of usage comes at the end.
            self._out.append(self._take_message_start({"type": "message_start", "message": {}}))
        self._begin_text(before)
        self._usage.read_block_start(block)
        self._write(payload, data)

    def _take_block_delta(self, payload: dict[str, Any], data: bytes, *, may_hold_halves: bool) -> None:
        delta = payload.get("delta")
        if not self._has_started or self._message_delta is not None or not isinstance(delta, dict):
            raise UpstreamProtocolError("content_block_delta out of place, or without its delta")
        before = self._blocks.delta(payload, delta)
        if before:
            self._begin_text(before)
        if may_hold_halves or self._text.half:
            joined = {name: self._text.join(delta.pop(name)) for name in TEXT_FIELDS if type(delta.get(name)) is str}
            self._text_delta = {"type": str(delta.get("type")), **dict.fromkeys(joined, "")}
            payload["delta"] = delta = {**mend_all(delta), **joined}
            data = orjson.dumps(payload)
        arguments = delta.get(ARGUMENTS)
        if type(arguments) is str and (mended := self._escapes.mend(arguments)) is not arguments:
            delta[ARGUMENTS] = mended
            data = orjson.dumps(payload)
        self._usage.read_delta(delta)
        self._write(payload, data)

    def _take_block_stop(self, payload: dict[str, Any], data: bytes) -> None:
        if self._blocks.stop(payload):
            self._end_text(self._blocks.number)
            self._write(payload, data)

    def _begin_text(self, before: list[dict[str, Any]]) -> None:
        """Write what goes before a new block, whose text begins with no half of another's."""
        if before and before[0]["type"] == "content_block_stop":
            self._end_text(before[0]["index"])
        self._text.half = ""
        self._out.extend(encode_event(payload["type"], orjson.dumps(payload)) for payload in before)

    def _end_text(self, number: int) -> None:
        """Write what of this block's text waited for more, and what stands for half a character at its end."""
        if rest := self._escapes.end():
            self._write_delta(number, {"type": "input_json_delta", ARGUMENTS: rest})
        if lone := self._text.end():
            self._write_delta(number, {name: value or lone for name, value in self._text_delta.items()})

    def _write_delta(self, number: int, delta: dict[str, str]) -> None:
        payload = {"type": "content_block_delta", "index": number, "delta": delta}
        self._out.append(encode_event("content_block_delta", orjson.dumps(payload)))

    def _write(self, payload: dict[str, Any], data: bytes) -> None:
        """Write an event of the block that began last as it came, but for its number where that is another one."""
        if payload["index"] != self._blocks.number:
            data = orjson.dumps({**payload, "index": self._blocks.number})
        self._out.append(encode_event(payload["type"], data))

    def _take_message_delta(self, payload: dict[str, Any]) -> None:
        """Hold the event, merged over one that came before: its counts are cumulative, so the later value is true.

        A block that is still open, as servers leave it at the limit of tokens, is closed.
        """
        delta = payload.get("delta")
        if not self._has_started or not isinstance(delta, dict):
            raise UpstreamProtocolError("message_delta out of place, or without its delta")
        self._begin_text(self._blocks.close())
        self._usage.read_usage(payload.get("usage"), is_start=False)
        self._usage.read_stop_reason(delta)
        held = self._message_delta or {
            "type": "message_delta",
            "delta": {"stop_reason": None, "stop_sequence": None},
            "usage": {},
        }
        usage = payload.get("usage")
        usage = {**held["usage"], **(usage if isinstance(usage, dict) else {})}
        usage.update(zip(COUNT_FIELDS, self._usage.counts(), strict=True))
        said = {name: value for name, value in delta.items() if value is not None or name not in held["delta"]}
        self._message_delta = {**held, **payload, "delta": {**held["delta"], **said}, "usage": usage}

    def _take_message_stop(self) -> StreamEnd:
        if self._message_delta is None:
            raise UpstreamProtocolError("message_stop without message_delta")
        self._usage.is_complete = True
        return StreamEnd(self._message_delta)
