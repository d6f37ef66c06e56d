"""A stream of the Messages protocol on its way from the upstream to the client. Pure.

Data of events passes as it came, in framing of our own (an `event:` line always). Rewritten are `message_start` (id,
model, counts) and `message_delta` (all four counts, the input's merged in from the start, since some clients read them
nowhere else), the numbers of blocks that come out of order (see block_order), and texts with characters cut in two (see
broken_text). Events of unknown types are dropped: the AI SDK fails on them. Blocks and deltas of unknown types pass.
`message_delta` is held back with `message_stop`, so that nothing looks complete before its hold is closed. One of them
may be missing: the reply is whole once it was said why it ended, or that it has, and its upstream closes.
"""

from typing import Any, cast

import orjson

from gateway.protocol.block_order import BlockOrder
from gateway.protocol.codec import ReplyIdentity, StreamEnd
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.json.broken_escapes import EscapeMender
from gateway.protocol.json.broken_text import HalfJoiner, mend_all
from gateway.protocol.messages.reply_blocks import mend_block, mend_delta, mend_usage, plain_stop_reason, text_or_none
from gateway.protocol.messages.response import load_event, rewrite_message
from gateway.protocol.messages.usage import COUNT_FIELDS, MessagesUsageReader
from gateway.protocol.sse import PING, SseEvent, encode_event
from gateway.protocol.stream_frame import StreamFrame
from gateway.protocol.upstream_errors import read_stream_error
from gateway.protocol.usage_reading import UsageReading

ARGUMENTS = "partial_json"
TEXT_FIELDS = ("text", "thinking", ARGUMENTS)
EVENTS = (
    "content_block_delta",
    "content_block_start",
    "content_block_stop",
    "error",
    "message_delta",
    "message_start",
    "message_stop",
    "ping",
)
NO_MESSAGE_DELTA: dict[str, Any] = {
    "type": "message_delta",
    "delta": {"stop_reason": None, "stop_sequence": None},
    "usage": {},
}


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
        self._last_kind = ""  # Of the block that began last.
        self._message_delta: dict[str, Any] | None = None
        self._was_begun = False  # By a message_start of the upstream's.
        self._is_said = False  # Why it ended was said, or that it has; and no block began since.
        self._has_stopped = False  # `message_stop` came, before what it ends.

    @property
    def is_said(self) -> bool:
        return self._is_said

    def reading(self) -> UsageReading:
        return self._usage.reading()

    def _take_clean_end(self) -> StreamEnd:
        if not self._is_said:
            raise UpstreamProtocolError("the stream ended before message_stop")
        return self._finish()

    def _take_event(self, event: SseEvent) -> StreamEnd | None:
        if event.event == "error":
            raise read_stream_error(event.data)
        try:
            payload, may_hold_halves = load_event(event.data)
        except UpstreamProtocolError:
            if self._is_said:
                return None  # Whatever was cut off here, the reply was whole before it.
            raise
        data = event.data
        if payload.get("type") not in EVENTS and event.event in EVENTS:  # The line before it says what it is.
            payload["type"] = event.event
            data = orjson.dumps(payload)
        if payload.get("type") == "content_block_delta":
            self._take_block_delta(payload, data, may_hold_halves=may_hold_halves)
            return None
        if may_hold_halves:
            payload = mend_all(payload)
            data = orjson.dumps(payload)
        return self._take_rare_event(payload, data)

    def _take_rare_event(self, payload: dict[str, Any], data: bytes) -> StreamEnd | None:
        event_type = payload.get("type")
        if event_type == "content_block_start":
            self._take_block_start(payload, data)
        elif event_type == "content_block_stop":
            self._take_block_stop(payload, data)
        elif event_type == "message_start":
            self._take_message_start(payload)
        elif event_type == "message_delta":
            self._take_message_delta(payload)
        elif event_type == "message_stop":
            return self._take_message_stop()
        elif event_type == "ping" and self._has_started:
            self._out.append(PING)
        elif event_type == "error":
            raise read_stream_error(data)
        return None

    def _take_message_start(self, payload: dict[str, Any]) -> None:
        message = payload.get("message")
        if not isinstance(message, dict):
            return  # The first block begins it.
        if self._blocks.count and self._was_begun:
            raise UpstreamProtocolError("a second message_start, behind content")
        self._was_begun = True
        content = message.get("content")
        if isinstance(content, list) and any(isinstance(block, dict) for block in content):
            raise UpstreamProtocolError("a message_start that has content already")
        self._usage.read_start(message)
        if self._has_started:
            return  # Said twice.
        self._has_started = True
        rewrite_message(message, self._identity)
        message["content"] = []
        self._out.append(encode_event("message_start", orjson.dumps(payload)))

    def _take_block_start(self, payload: dict[str, Any], data: bytes) -> None:
        spare_id = f"toolu_{self._identity.message_id.removeprefix('msg_')}_{self._blocks.count}"
        block = mend_block(payload.get("content_block"), spare_id, is_start=True)
        if block is None:
            return  # Its first delta says what it is.
        if block is not payload["content_block"]:
            payload["content_block"] = block
            data = orjson.dumps(payload)
        if not self._has_started:  # The server forgot to say it, and what it says of usage comes at the end.
            self._take_message_start({"type": "message_start", "message": {}})
            self._was_begun = False
        self._begin_text(self._blocks.start(payload))
        self._last_kind, self._is_said = block["type"], self._has_stopped
        self._usage.read_block_start(block)
        self._write(payload, data)

    def _take_block_delta(self, payload: dict[str, Any], data: bytes, *, may_hold_halves: bool) -> None:
        delta = mend_delta(payload.get("delta"))
        if delta is None:
            return
        if delta is not payload["delta"]:
            payload["delta"] = delta
            data = orjson.dumps(payload)
        if not self._has_started:
            raise UpstreamProtocolError("content_block_delta before any block")
        before = self._blocks.delta(payload, delta)
        if before:
            self._begin_text(before)
            if self._blocks.open_index is not None and before[-1]["type"] == "content_block_start":
                self._last_kind, self._is_said = before[-1]["content_block"]["type"], self._has_stopped
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
        if payload.get("index") != self._blocks.number or type(payload["index"]) is not int:
            data = orjson.dumps({**payload, "index": self._blocks.number})
        self._out.append(encode_event(payload["type"], data))

    def _take_message_delta(self, payload: dict[str, Any]) -> None:
        """Hold the event, merged over one that came before: its counts are cumulative, so the later value is true.

        A block that is still open, as servers leave it at the limit of tokens, is closed.
        """
        if not self._has_started:
            raise UpstreamProtocolError("message_delta before message_start")
        delta, usage = payload.get("delta"), payload.get("usage")
        delta = dict(delta) if isinstance(delta, dict) else {}
        for name in ("stop_reason", "stop_sequence"):
            if name in delta:
                delta[name] = text_or_none(delta[name])
        self._begin_text(self._blocks.close())
        self._usage.read_usage(usage, is_start=False)
        self._usage.read_stop_reason(delta)
        held = self._message_delta or NO_MESSAGE_DELTA
        usage = {**held["usage"], **(usage if isinstance(usage, dict) else {})}
        mend_usage(usage)
        usage.update(zip(COUNT_FIELDS, self._usage.counts(), strict=True))
        said = {name: value for name, value in delta.items() if value is not None or name not in held["delta"]}
        self._message_delta = {**held, **payload, "delta": {**held["delta"], **said}, "usage": usage}
        self._is_said = self._is_said or delta.get("stop_reason") is not None

    def _take_message_stop(self) -> StreamEnd | None:
        if not self._has_started:
            raise UpstreamProtocolError("message_stop before message_start")
        if self._is_said:
            return self._finish()
        self._has_stopped = self._is_said = True  # What it ends may come behind it.
        return None

    def _finish(self) -> StreamEnd:
        self._take_message_delta({"type": "message_delta"})
        message_delta = cast("dict[str, Any]", self._message_delta)
        if message_delta["delta"]["stop_reason"] is None:
            message_delta["delta"]["stop_reason"] = plain_stop_reason(self._last_kind)
        self._usage.is_complete = True
        return StreamEnd(message_delta)
