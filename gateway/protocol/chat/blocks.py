"""Content blocks written as Messages events, from pieces that may come interleaved. Pure.

Blocks of a Messages stream may not overlap, fragments of several tool calls may. The call that is open is streamed as
it comes; whatever else arrives waits behind it in order, until its arguments are a complete object or the reply ends.
"""

from collections import deque
from typing import Any

import orjson

from gateway.protocol.chat.names import CallIds, ToolNames
from gateway.protocol.errors import UNUSABLE_CODE, UNUSABLE_TEXT, UpstreamProtocolError
from gateway.protocol.json import exact as exact_json
from gateway.protocol.json.arguments import read_arguments
from gateway.protocol.json.broken_escapes import EscapeMender
from gateway.protocol.sse import encode_event

MAX_HELD_CHARS = 16 * 1024 * 1024  # Of arguments, and of texts that wait.
PIECE_CHARS = 64  # What keeping one piece costs besides its text: empty ones must not be free.
MAX_CALLS = 1_000
FREE_CHECK_CHARS = 1024 * 1024  # Arguments are read as often as they may be whole, up to so much in all.
TEXT, THINKING = "text", "thinking"
_STARTS: dict[str, dict[str, Any]] = {
    TEXT: {"type": "text", "text": ""},
    THINKING: {"type": "thinking", "thinking": "", "signature": ""},
}


class _Passage:
    """Text or thinking that waits for its turn."""

    __slots__ = ("kind", "pieces")

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.pieces = [text]


class _Call:
    """One tool call. Its arguments are streamed once they begin like an object; anything else is judged whole."""

    __slots__ = (
        "call_id",
        "checked_chars",
        "checked_pieces",
        "escapes",
        "is_closed",
        "is_streaming",
        "is_whole",
        "name",
        "pieces",
    )

    def __init__(self) -> None:
        self.call_id: object = None
        self.name = ""
        self.pieces: list[str] = []
        self.escapes = EscapeMender()
        self.is_streaming = False
        self.is_closed = False
        self.is_whole = False
        self.checked_pieces = 0
        self.checked_chars = 0

    def holds_object(self) -> bool:
        """True when the arguments so far are one complete JSON object: nothing can come after it."""
        return self.is_streaming and self.seems_whole()

    def seems_whole(self) -> bool:
        """The same of a call that waits for its turn."""
        if self.checked_pieces != len(self.pieces):
            self.checked_pieces = len(self.pieces)
            self.is_whole = "".join(self.pieces[-1:]).rstrip().endswith("}") and self._read_so_far()
        return self.is_whole

    def _read_so_far(self) -> bool:
        """True when the pieces are one object. Pieces that all look like its end would have it read again and again:
        past a bound that is left to the end of the reply.
        """
        if self.checked_chars > FREE_CHECK_CHARS:
            return False
        text = "".join(self.pieces)
        self.checked_chars += len(text)
        return read_arguments(text) is not None


class BlockWriter:
    """Takes pieces in the order of their arrival and appends events to `out`. Raises UpstreamProtocolError."""

    def __init__(self, out: list[bytes], names: ToolNames, ids: CallIds) -> None:
        self._out = out
        self._names = names
        self._ids = ids
        self._index = -1  # Of the block that was started last.
        self._open_kind: str | None = None
        self._live: _Call | None = None
        self._waiting: deque[_Passage | _Call] = deque()
        self._call_by_index: dict[int, _Call] = {}
        self._call_count = 0
        self._held_chars = 0

    @property
    def has_calls(self) -> bool:
        return self._call_count > 0

    def add_passage(self, kind: str, text: str) -> None:
        """Take a piece of TEXT or THINKING."""
        if self._live is None and not self._waiting:
            self._write_passage(kind, text)
            return
        self._hold(text)
        last = self._waiting[-1] if self._waiting else None
        if isinstance(last, _Passage) and last.kind == kind:
            last.pieces.append(text)
        else:
            self._waiting.append(_Passage(kind, text))
        self._advance()

    def add_fragment(self, index: int | None, call_id: object, name: object, arguments: str) -> None:
        """Take a fragment of the tool call with that index; id and name come with its first one only."""
        call = self._find_call(index, call_id, name, arguments)
        if call.is_closed:
            if arguments.strip():
                raise _model_fault("more arguments for a tool call that was complete")
            return
        call.call_id = call.call_id or call_id
        if not call.name and isinstance(name, str):
            call.name = name
        if arguments:
            arguments = call.escapes.mend(arguments)
            self._hold(arguments)
            call.pieces.append(arguments)
        if call is self._live:
            self._write_arguments(call, arguments)
        else:
            self._advance()

    def finish(self, *, is_truncated: bool) -> None:
        """Write all that waits and close the last block. Arguments may be broken off only when `is_truncated`."""
        while self._live is not None or self._waiting:
            if self._live is not None:
                self._close_call(self._live, is_truncated=is_truncated)
            if self._waiting:
                self._write_next()
        self._close_block()

    def _find_call(self, index: int | None, call_id: object, name: object, arguments: str) -> _Call:
        """Return the call of a fragment, a new one where it begins one.

        A second name under an index in use begins another call when its id is another one: Google's endpoint gives all
        calls the index 0. So it does with arguments when those of the call are whole, which nothing can follow: some
        servers give all of them one id too, or none. Without an index a fragment belongs to the call before it, unless
        it has a name.
        """
        call = self._call_by_index.get(index or 0)
        is_other = False
        if call is not None and call.name and name:
            is_other = call_id != call.call_id if call_id else index is None
            is_other = is_other or (bool(arguments.strip()) and call.seems_whole())
        if call is None or is_other:
            self._call_count += 1
            if self._call_count > MAX_CALLS:
                raise _model_fault(f"more than {MAX_CALLS} tool calls")
            call = self._call_by_index[index or 0] = _Call()
            self._waiting.append(call)
        return call

    def _hold(self, text: str) -> None:
        self._held_chars += len(text) + PIECE_CHARS
        if self._held_chars > MAX_HELD_CHARS:
            raise _model_fault(f"more than {MAX_HELD_CHARS} characters of tool calls")

    def _advance(self) -> None:
        while self._waiting:
            if self._live is not None:
                if not self._live.holds_object():
                    return
                self._close_call(self._live, is_truncated=False)
            first = self._waiting[0]
            if isinstance(first, _Call) and not first.name:
                return  # Its name has yet to come.
            self._write_next()

    def _write_next(self) -> None:
        item = self._waiting.popleft()
        if isinstance(item, _Passage):
            self._write_passage(item.kind, "".join(item.pieces))
            return
        if not item.name:
            raise _model_fault("a tool call without a name")
        self._close_block()
        name = self._names.restore(item.name)
        block = {"type": "tool_use", "id": self._ids.accept(item.call_id), "name": name, "input": {}}
        self._start_block("tool_use", block)
        self._live = item
        if item.pieces:
            self._write_arguments(item, "".join(item.pieces))

    def _write_passage(self, kind: str, text: str) -> None:
        if self._open_kind != kind:
            self._close_block()
            self._start_block(kind, _STARTS[kind])
        self._write_delta({"type": f"{kind}_delta", kind: text})

    def _write_arguments(self, call: _Call, text: str) -> None:
        if not call.is_streaming:
            text = "".join(call.pieces)
            call.is_streaming = text.lstrip().startswith("{")
        if call.is_streaming and text:
            self._write_delta({"type": "input_json_delta", "partial_json": text})

    def _close_call(self, call: _Call, *, is_truncated: bool) -> None:
        if rest := call.escapes.end():
            call.pieces.append(rest)
            self._write_arguments(call, rest)
        arguments = {} if call.holds_object() else read_arguments("".join(call.pieces))
        if arguments is None and not is_truncated:
            raise _model_fault("a tool call whose arguments are not a JSON object")
        if arguments and not call.is_streaming:  # An object inside a string.
            self._write_delta({"type": "input_json_delta", "partial_json": exact_json.encode(arguments).decode()})
        call.is_closed = True
        self._live = None
        self._close_block()

    def _start_block(self, kind: str, block: dict[str, Any]) -> None:
        self._index += 1
        self._open_kind = kind
        self._write("content_block_start", {"content_block": block})

    def _close_block(self) -> None:
        if self._open_kind is not None:
            self._open_kind = None
            self._write("content_block_stop", {})

    def _write_delta(self, delta: dict[str, Any]) -> None:
        self._write("content_block_delta", {"delta": delta})

    def _write(self, event: str, fields: dict[str, Any]) -> None:
        self._out.append(encode_event(event, orjson.dumps({"type": event, "index": self._index, **fields})))


def _model_fault(reason: str) -> UpstreamProtocolError:
    """Return the failure for what the model wrote, which the client can ask it to."""
    return UpstreamProtocolError(reason, code=UNUSABLE_CODE, client_message=UNUSABLE_TEXT, is_upstream_fault=False)
