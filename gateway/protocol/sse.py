"""Server-sent events: an incremental parser and the encoder. Pure.

Source: the event stream section of the WHATWG HTML standard. Lines end with CR, LF or CRLF and with nothing else: text
splitters that know U+2028 break JSON strings apart.
"""

from typing import NamedTuple

import orjson

from gateway.protocol.errors import SseTooLargeError

MAX_EVENT_BYTES = 8 * 1024 * 1024  # One event, its lines together; the largest real ones carry a whole search result.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PING = b'event: ping\ndata: {"type": "ping"}\n\n'


class SseEvent(NamedTuple):
    """One event as dispatched: `event` is empty when the stream named none."""

    event: str
    data: bytes


class SseParser:
    """Feed it any chunks; it returns the same events however the stream was cut."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._partial: list[bytes] = []  # Pieces of the line that has not ended yet.
        self._event_bytes = 0  # Of the event that has not ended yet, its partial line included.
        self._event = ""
        self._data: list[bytes] = []
        self._ended_with_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Return the events that `chunk` completes. Raises SseTooLargeError; the parser is of no use afterwards."""
        if self._ended_with_cr and chunk:
            self._ended_with_cr = False
            if chunk[0] == 0x0A:  # The second half of a CRLF whose first half ended a line already.
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._ended_with_cr = chunk[-1] == 0x0D
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        if len(lines) == 1:
            self._keep_partial(chunk)
            return []
        if self._partial:
            self._partial.append(lines[0])
            self._event_bytes -= sum(map(len, self._partial)) - len(lines[0])
            lines[0] = b"".join(self._partial)
            self._partial = []
        rest = lines.pop()
        events: list[SseEvent] = []
        for line in lines:
            if line:
                self._take_line(line)
            elif self._data:
                events.append(self._end_event())
            else:
                self._event = ""
                self._event_bytes = 0
        if rest:
            self._keep_partial(rest)
        return events

    def flush(self) -> list[SseEvent]:
        """Return the event that the stream ended in, as if a blank line had followed. Raises SseTooLargeError.

        The standard drops it, but providers exist that end without the blank line; a truncated one is not JSON.
        """
        return self.feed(b"\n\n")

    def _keep_partial(self, piece: bytes) -> None:
        if piece:
            self._partial.append(piece)
            self._add_bytes(len(piece))

    def _add_bytes(self, count: int) -> None:
        self._event_bytes += count
        if self._event_bytes > self._max_event_bytes:
            raise SseTooLargeError(f"an event of more than {self._max_event_bytes} bytes")

    def _take_line(self, line: bytes) -> None:
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BYTE_ORDER_MARK)
        self._add_bytes(len(line) + 1)
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            self._event = line[6:].removeprefix(b" ").decode("utf-8", "replace")
        elif line == b"data":
            self._data.append(b"")
        elif line == b"event":
            self._event = ""
        elif line.startswith(b":") and not self._data:
            self._event_bytes = 0  # Comments keep a connection alive for hours; they are part of no event.

    def _end_event(self) -> SseEvent:
        data = self._data
        event = SseEvent(self._event, data[0] if len(data) == 1 else b"\n".join(data))
        self._event = ""
        self._data = []
        self._event_bytes = 0
        return event


def encode_event(event: str, data: bytes) -> bytes:
    """Return the bytes of one event. `data` may have line ends of its own; `event` may not."""
    if b"\n" in data or b"\r" in data:
        data = b"\ndata: ".join(data.splitlines())  # bytes.splitlines knows CR, LF and CRLF only.
    return b"event: %b\ndata: %b\n\n" % (event.encode(), data)


def encode_error_event(*, error_type: str, code: str, message: str, request_id: str) -> bytes:
    """Return the `event: error` that ends a stream which cannot be completed."""
    error = {"type": error_type, "message": message, "code": code}
    return encode_event("error", orjson.dumps({"type": "error", "error": error, "request_id": request_id}))
