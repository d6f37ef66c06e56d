"""A stream of Chat Completions on its way to the client as Messages events. Pure.

The reply is complete with `[DONE]`, or with a clean end, once a `finish_reason` was said; anything else that ends it is
a failure. Usage comes with the last chunk, after it, behind `[DONE]`, or never: so the end waits for it. Once `[DONE]`
was said the reply is whole, and whoever reads the stream waits for no longer than a moment.
"""

from contextlib import suppress
from typing import Any

import orjson

from gateway.protocol.chat.blocks import TEXT, THINKING, BlockWriter
from gateway.protocol.chat.names import CallIds, ToolNames
from gateway.protocol.chat.parts import (
    CUT_OFF,
    FILTERED,
    arguments_text,
    calls_of,
    choices_of,
    finish_reason_of,
    index_of,
    map_stop_reason,
    require_no_error,
    text_of,
    thinking_of,
)
from gateway.protocol.chat.usage import ChatUsageReader
from gateway.protocol.codec import ReplyIdentity, StreamEnd
from gateway.protocol.errors import UpstreamProtocolError
from gateway.protocol.json.broken_text import HalfJoiner, mend, mend_all
from gateway.protocol.messages.response import load_event
from gateway.protocol.messages.usage import COUNT_FIELDS
from gateway.protocol.profile import UpstreamProfile
from gateway.protocol.sse import SseEvent, encode_event
from gateway.protocol.stream_frame import StreamFrame
from gateway.protocol.upstream_errors import read_stream_error
from gateway.protocol.usage_reading import UsageReading

DONE = b"[DONE]"


class ChatStreamDecoder(StreamFrame):
    """See codec.StreamDecoder."""

    def __init__(
        self, identity: ReplyIdentity, *, names: ToolNames, profile: UpstreamProfile, stop_sequences: list[str]
    ) -> None:
        super().__init__()
        self._identity = identity
        self._stop_sequences = stop_sequences
        self._usage = ChatUsageReader(profile)
        self._blocks = BlockWriter(self._out, names, CallIds(identity.message_id))
        self._has_halves = False  # Of characters, in the texts of this stream: see broken_text.
        self._joiners: dict[str | int | None, HalfJoiner] = {}
        self._is_refused = False
        self._is_empty = True  # Nothing of a reply has come yet.
        self._has_messages = False  # It came in the place of deltas.
        self._choice_index: object = None  # Of the choice that came first: others are another reply.
        self._finish_reason: str | None = None
        self._is_done = False  # `[DONE]` was said.
        self._last_choice: dict[str, Any] = {}

    def reading(self) -> UsageReading:
        return self._usage.reading()

    @property
    def is_said(self) -> bool:
        return self._is_done

    def _take_events(self, events: list[SseEvent]) -> StreamEnd | None:
        super()._take_events(events)
        return self._finish() if self._is_done and (self._usage.has_usage or self._finish_reason is None) else None

    def _take_event(self, event: SseEvent) -> StreamEnd | None:
        if event.data.strip() == DONE:
            self._is_done = True
            return None
        if self._is_done:
            self._take_late_usage(event)
            return None
        if event.event == "error":
            raise read_stream_error(event.data)
        self._take_chunk(event.data)
        return None

    def _take_clean_end(self) -> StreamEnd:
        return self._finish()

    def _take_chunk(self, data: bytes) -> None:
        payload, may_hold_halves = load_event(data)
        if may_hold_halves:
            self._has_halves = True
            payload = {**mend_all({**payload, "choices": None}), "choices": payload.get("choices")}
        if payload.get("error"):
            raise read_stream_error(data)
        self._usage.read_id(payload.get("id"))
        self._usage.read_payload(payload)
        for choice in choices_of(payload):
            index = index_of(choice)
            if self._choice_index in (None, index):
                self._choice_index = index
                require_no_error(payload, choice)
                self._take_choice(choice)

    def _take_late_usage(self, event: SseEvent) -> None:
        """Read nothing but counts: whatever else follows a whole reply is none of it."""
        with suppress(UpstreamProtocolError):
            self._usage.read_payload(load_event(event.data)[0])

    def _take_choice(self, choice: dict[str, Any]) -> None:
        delta = choice.get("delta")
        if not delta and "message" in choice and (self._is_empty or self._has_messages):
            delta = choice["message"]  # Often the whole reply in one chunk; behind deltas it would repeat them.
            self._has_messages = True
        self._start()
        if delta and isinstance(delta, dict):
            self._take_delta(delta)
        finish_reason = finish_reason_of(choice)
        if finish_reason is not None:
            self._finish_reason = finish_reason
            self._last_choice = choice

    def _take_delta(self, delta: dict[str, Any]) -> None:
        thinking = self._whole(THINKING, thinking_of(delta))
        if thinking:
            self._add_passage(THINKING, thinking)
        refusal = text_of(delta.get("refusal"))
        self._is_refused = self._is_refused or bool(refusal)
        text = self._whole(TEXT, text_of(delta.get("content")) + refusal)
        if text:
            self._add_passage(TEXT, text)
        for call in calls_of(delta):
            self._take_fragment(call)

    def _add_passage(self, kind: str, text: str) -> None:
        self._is_empty = False
        if kind == THINKING:
            self._usage.add_thinking(text)
        else:
            self._usage.add_text(text)
        self._blocks.add_passage(kind, text)

    def _take_fragment(self, call: dict[str, Any]) -> None:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        index = call.get("index") if type(call.get("index")) is int else None
        call_id, name = text_of(call.get("id")), mend(text_of(function.get("name")))
        arguments = self._whole(index, arguments_text(function.get("arguments")))
        if not (call_id or name or arguments):
            return
        self._is_empty = False
        self._usage.add_text(arguments)
        self._blocks.add_fragment(index, call_id, name, arguments)

    def _whole(self, source: object, text: str) -> str:
        """Return what of a piece of text, thinking or arguments is whole characters, with what was left of the last."""
        if not self._has_halves:
            return text
        return self._joiners.setdefault(source if isinstance(source, str | int) else None, HalfJoiner()).join(text)

    def _end_halves(self, *, is_truncated: bool) -> None:
        """Write what stands for half a character at the end of a text; arguments end in one only when cut off."""
        for source, joiner in self._joiners.items():
            lone = joiner.end()
            if lone and source in (THINKING, TEXT):
                self._add_passage(str(source), lone)
            elif lone and is_truncated and not isinstance(source, str):
                self._blocks.add_fragment(source, None, None, lone)

    def _start(self) -> None:
        if self._has_started:
            return
        self._has_started = True
        message: dict[str, Any] = {
            "id": self._identity.message_id,
            "type": "message",
            "role": "assistant",
            "model": self._identity.model_id,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": dict.fromkeys(COUNT_FIELDS, 0),
        }
        event = {"type": "message_start", "message": message}
        self._out.append(encode_event("message_start", orjson.dumps(event)))

    def _finish(self) -> StreamEnd:
        if self._finish_reason is None and not self._has_started and self._usage.has_usage:
            self._start()
            self._finish_reason = FILTERED[0]  # No choice, but a bill: what a provider's filter leaves.
        if self._finish_reason is None:
            raise UpstreamProtocolError("the stream ended without a finish_reason")
        self._end_halves(is_truncated=self._finish_reason in CUT_OFF)
        self._blocks.finish(is_truncated=self._finish_reason in CUT_OFF)
        stop_reason, stop_sequence = map_stop_reason(
            self._finish_reason,
            self._last_choice,
            has_calls=self._blocks.has_calls,
            is_refused=self._is_refused,
            stop_sequences=self._stop_sequences,
        )
        self._usage.complete(stop_reason)
        return StreamEnd(
            {
                "type": "message_delta",
                "delta": {"stop_reason": stop_reason, "stop_sequence": stop_sequence},
                "usage": dict(zip(COUNT_FIELDS, self._usage.counts(), strict=True)),
            }
        )
