"""A stream of the Messages protocol on its way from the upstream to the client. Pure.

Data of events passes as it came, in framing of our own (an `event:` line always). Rewritten are `message_start` (id,
model, counts) and `message_delta` (all four counts, the input's merged in from the start, since some clients read them
nowhere else), the numbers of blocks that come out of order (see block_order), and texts with characters cut in two (see
broken_text). Events of unknown types are dropped: the AI SDK fails on them. Blocks and deltas of unknown types pass.
`message_delta` is held back with `message_stop`, so that nothing looks complete before it is settled.
"""

from typing import Any

import orjson

from gateway.protocol.block_order import BlockOrder
from gateway.protocol.broken_text import HalfJoiner, mend_all
from gateway.protocol.codec import NOTHING, RelayStep, ReplyIdentity, StreamEnd
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.messages_response import load_event, rewrite_message
from gateway.protocol.messages_usage import COUNT_FIELDS, MessagesUsageReader
from gateway.protocol.reading import UsageReading
from gateway.protocol.sse import PING, SseEvent, SseParser, encode_event
from gateway.protocol.upstream_errors import read_stream_error

TEXT_FIELDS = ("text", "thinking", "partial_json")


class MessagesStreamDecoder:
    """See codec.StreamDecoder."""

    def __init__(self, identity: ReplyIdentity) -> None:
        self._identity = identity
        self._parser = SseParser()
        self._usage = MessagesUsageReader()
        self._has_started = False
        self._is_over = False
        self._blocks = BlockOrder()
        self._text = HalfJoiner()  # Of the block that began last.
        self._message_delta: dict[str, Any] | None = None

    @property
    def has_started(self) -> bool:
        return self._has_started

    def reading(self) -> UsageReading:
        return self._usage.reading()

    def feed(self, chunk: bytes) -> RelayStep:
        if self._is_over:
            return NOTHING
        try:
            events = self._parser.feed(chunk)
        except UpstreamProtocolError as error:
            return self._fail([], error)
        return self._take_events(events)

    def flush(self) -> RelayStep:
        if self._is_over:
            return NOTHING
        try:
            events = self._parser.flush()
        except UpstreamProtocolError as error:
            return self._fail([], error)
        step = self._take_events(events)
        if self._is_over:
            return step
        return self._fail([step.forward], UpstreamProtocolError("the stream ended before message_stop"))

    def _take_events(self, events: list[SseEvent]) -> RelayStep:
        out: list[bytes] = []
        try:
            for event in events:
                self._take_event(event, out)
                if self._usage.is_complete and self._message_delta is not None:
                    self._is_over = True
                    return RelayStep(b"".join(out), end=StreamEnd(self._message_delta))
        except UpstreamProtocolError as error:
            return self._fail(out, error)
        return RelayStep(out[0] if len(out) == 1 else b"".join(out)) if out else NOTHING

    def _fail(self, out: list[bytes], error: UpstreamProtocolError) -> RelayStep:
        self._is_over = True
        return RelayStep(b"".join(out), failure=error)

    def _take_event(self, event: SseEvent, out: list[bytes]) -> None:
        if event.event == "error":
            raise read_stream_error(event.data)
        payload, may_hold_halves = load_event(event.data)
        event_type = payload.get("type")
        if event_type == "content_block_delta":
            self._take_block_delta(payload, event.data, out, may_hold_halves=may_hold_halves)
            return
        if may_hold_halves:
            payload = mend_all(payload)
            event = event._replace(data=orjson.dumps(payload))
        if event_type == "content_block_start":
            self._take_block_start(payload, event.data, out)
        elif event_type == "content_block_stop":
            self._take_block_stop(payload, event.data, out)
        elif event_type == "message_start":
            out.append(self._take_message_start(payload))
        elif event_type == "message_delta":
            self._take_message_delta(payload, out)
        elif event_type == "message_stop":
            self._take_message_stop()
        elif event_type == "ping" and self._has_started:
            out.append(PING)
        elif event_type == "error":
            raise read_stream_error(event.data)

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

    def _take_block_start(self, payload: dict[str, Any], data: bytes, out: list[bytes]) -> None:
        block = payload.get("content_block")
        if self._message_delta is not None or not isinstance(block, dict):
            raise UpstreamProtocolError("content_block_start out of place, or without its block")
        before = self._blocks.start(payload)
        if not self._has_started:  # The server forgot to say it, and what it says of usage comes at the end.
            out.append(self._take_message_start({"type": "message_start", "message": {}}))
        self._begin_text(before, out)
        self._usage.read_block_start(block)
        self._write(payload, data, out)

    def _take_block_delta(
        self, payload: dict[str, Any], data: bytes, out: list[bytes], *, may_hold_halves: bool
    ) -> None:
        delta = payload.get("delta")
        if not self._has_started or self._message_delta is not None or not isinstance(delta, dict):
            raise UpstreamProtocolError("content_block_delta out of place, or without its delta")
        before = self._blocks.delta(payload, delta)
        if before:
            self._begin_text(before, out)
        if may_hold_halves or self._text.half:
            joined = {name: self._text.join(delta.pop(name)) for name in TEXT_FIELDS if type(delta.get(name)) is str}
            payload["delta"] = delta = {**mend_all(delta), **joined}
            data = orjson.dumps(payload)
        self._usage.read_delta(delta)
        self._write(payload, data, out)

    def _take_block_stop(self, payload: dict[str, Any], data: bytes, out: list[bytes]) -> None:
        if self._blocks.stop(payload):
            self._write(payload, data, out)

    def _begin_text(self, before: list[dict[str, Any]], out: list[bytes]) -> None:
        """Write what goes before a new block, whose text begins with no half of another's."""
        self._text.half = ""
        out.extend(encode_event(payload["type"], orjson.dumps(payload)) for payload in before)

    def _write(self, payload: dict[str, Any], data: bytes, out: list[bytes]) -> None:
        """Write an event of the block that began last as it came, but for its number where that is another one."""
        if payload["index"] != self._blocks.number:
            data = orjson.dumps({**payload, "index": self._blocks.number})
        out.append(encode_event(payload["type"], data))

    def _take_message_delta(self, payload: dict[str, Any], out: list[bytes]) -> None:
        """Hold the event, merged over one that came before: its counts are cumulative, so the later value is true.

        A block that is still open, as servers leave it at the limit of tokens, is closed.
        """
        delta = payload.get("delta")
        if not self._has_started or not isinstance(delta, dict):
            raise UpstreamProtocolError("message_delta out of place, or without its delta")
        self._begin_text(self._blocks.close(), out)
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

    def _take_message_stop(self) -> None:
        if self._message_delta is None:
            raise UpstreamProtocolError("message_stop without message_delta")
        self._usage.is_complete = True
