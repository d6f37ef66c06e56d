"""A stream of the Messages protocol on its way from the upstream to the client. Pure.

Data of events passes as it came, in framing of our own (an `event:` line always). Rewritten are `message_start` (id,
model, counts) and `message_delta` (all four counts, the input's merged in from the start, since some clients read them
nowhere else). Events of unknown types are dropped: the AI SDK fails on them. Blocks and deltas of unknown types pass.
`message_delta` is held back with `message_stop`, so that nothing looks complete before it is settled.
"""

from typing import Any

import orjson

from gateway.protocol.codec import NOTHING, RelayStep, ReplyIdentity, StreamEnd
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.messages_response import load_object, rewrite_message
from gateway.protocol.messages_usage import COUNT_FIELDS, MessagesUsageReader
from gateway.protocol.reading import UsageReading
from gateway.protocol.sse import PING, SseEvent, SseParser, encode_event
from gateway.protocol.upstream_errors import read_stream_error

MAX_CONTENT_BLOCKS = 100_000


class MessagesStreamDecoder:
    """See codec.StreamDecoder."""

    def __init__(self, identity: ReplyIdentity) -> None:
        self._identity = identity
        self._parser = SseParser()
        self._usage = MessagesUsageReader()
        self._has_started = False
        self._is_over = False
        self._open_block: int | None = None
        self._block_count = 0
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
        payload = load_object(event.data)
        event_type = payload.get("type")
        if event_type == "content_block_delta":
            self._take_block_delta(payload)
        elif event_type == "content_block_start":
            self._take_block_start(payload)
        elif event_type == "content_block_stop":
            self._take_block_stop(payload)
        elif event_type == "message_start":
            out.append(self._take_message_start(payload))
            return
        elif event_type == "message_delta":
            self._take_message_delta(payload)
            return
        elif event_type == "message_stop":
            self._take_message_stop()
            return
        elif event_type == "ping":
            if self._has_started:
                out.append(PING)
            return
        elif event_type == "error":
            raise read_stream_error(event.data)
        else:
            return
        out.append(encode_event(event_type, event.data))

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

    def _take_block_start(self, payload: dict[str, Any]) -> None:
        block = payload.get("content_block")
        if not self._has_started or self._message_delta is not None or not isinstance(block, dict):
            raise UpstreamProtocolError("content_block_start out of place, or without its block")
        index = payload.get("index")
        if self._open_block is not None or type(index) is not int or index != self._block_count:
            raise UpstreamProtocolError(f"block {str(index)[:20]} started as number {self._block_count}")
        if index >= MAX_CONTENT_BLOCKS:
            raise UpstreamProtocolError(f"more than {MAX_CONTENT_BLOCKS} blocks")
        self._open_block = index
        self._block_count += 1
        self._usage.read_block_start(block)

    def _take_block_delta(self, payload: dict[str, Any]) -> None:
        delta = payload.get("delta")
        self._require_open_block(payload)
        if not isinstance(delta, dict):
            raise UpstreamProtocolError("content_block_delta without its delta")
        self._usage.read_delta(delta)

    def _take_block_stop(self, payload: dict[str, Any]) -> None:
        self._require_open_block(payload)
        self._open_block = None

    def _require_open_block(self, payload: dict[str, Any]) -> None:
        index = payload.get("index")
        if self._open_block is None or type(index) is not int or index != self._open_block:
            raise UpstreamProtocolError(f"{payload['type']} for block {str(index)[:20]}, which is not open")

    def _take_message_delta(self, payload: dict[str, Any]) -> None:
        """Hold the event, merged over one that came before: its counts are cumulative, so the later value is true."""
        delta = payload.get("delta")
        if not self._has_started or self._open_block is not None or not isinstance(delta, dict):
            raise UpstreamProtocolError("message_delta out of place, or without its delta")
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
