"""Sends a response over a connection at the pace and with the faults that its directives ask for, and journals it."""

import asyncio
import zlib
from collections.abc import Iterable

from sandbox import faults
from sandbox.attempt import Attempt
from sandbox.connection import Connection
from sandbox.directives import Directives
from sandbox.errors import reason
from sandbox.journal import FAILED_PREFIX, Journal
from sandbox.pieces import Piece, PieceKind, frame

COALESCED_BYTES = 16 * 1024
"""A stream without a pace is written in parts of about this size."""
SECONDS_BEFORE_RESET = 0.03
"""A reset discards what the client has not read yet: let what was sent before it arrive."""
GZIP_WINDOW_BITS = 31

# As a real provider sends them; a gateway must not pass them on.
PROVIDER_HEADERS = (
    b"server: crossmodel-sandbox\r\n"
    b"via: 1.1 sandbox\r\n"
    b"cf-ray: sandbox\r\n"
    b"set-cookie: _sandbox=1; path=/; HttpOnly\r\n"
    b"anthropic-organization-id: 00000000-0000-4000-8000-5a6db0000000\r\n"
    b"anthropic-ratelimit-requests-limit: 4000\r\n"
    b"anthropic-ratelimit-requests-remaining: 3999\r\n"
    b"anthropic-ratelimit-requests-reset: 2030-01-01T00:00:00Z\r\n"
    b"anthropic-ratelimit-tokens-limit: 400000\r\n"
    b"anthropic-ratelimit-tokens-remaining: 399000\r\n"
    b"anthropic-ratelimit-tokens-reset: 2030-01-01T00:00:00Z\r\n"
)
_OK_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + PROVIDER_HEADERS


class ResponseBrokenError(Exception):
    """A fault has ended the response; what was to follow is not sent."""


def response_head(
    status: int,
    request_id: str,
    *,
    content_type: bytes = b"application/json",
    length: int | None,
    gzipped: bool = False,
    retry_after_seconds: int | None = None,
    chunked: bool = False,
) -> bytes:
    """The response's head. Without a length the body is chunked, or for HTTP/1.0 ends with the connection."""
    if status == 200 and content_type == b"application/json":
        head = _OK_JSON
    else:
        head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n" % (status, reason(status).encode(), content_type)
        head += PROVIDER_HEADERS
    if length is not None:
        head += b"content-length: %d\r\n" % length
    elif chunked:
        head += b"transfer-encoding: chunked\r\n"
    if gzipped:
        head += b"content-encoding: gzip\r\n"
    if retry_after_seconds is not None:
        head += b"retry-after: %d\r\n" % retry_after_seconds
    return b"%brequest-id: %b\r\n\r\n" % (head, request_id.encode())


class Delivery:
    """One response on its way. A fault that ends it raises ResponseBrokenError."""

    def __init__(
        self, connection: Connection, attempt: Attempt, journal: Journal, *, chat: bool, pace_milliseconds: int
    ) -> None:
        self._connection = connection
        self._attempt = attempt
        self._journal = journal
        self._directives: Directives = attempt.directives
        self._chat = chat
        self._pace_seconds = self._directives.number("pace", pace_milliseconds) / 1_000
        self._eager = "pace" in self._directives or bool(pace_milliseconds)
        self._is_stream = False
        self._chunked = True
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._gzip = zlib.compressobj(wbits=GZIP_WINDOW_BITS) if "gzip" in self._directives else None

    async def before_headers(self) -> None:
        """The delay, and the faults before the first byte."""
        if "delay" in self._directives:
            await asyncio.sleep(self._directives.number("delay", 0) / 1_000)
        await self._break_at("before_headers")

    async def send_body(
        self, status: int, body: bytes, delivered: str, *, content_type: bytes, retry_after_seconds: int | None = None
    ) -> None:
        """Send a whole body; the journal has `delivered` on disk before the end of it goes out."""
        self._attempt.status = status
        if self._gzip is not None:
            body = self._gzip.compress(body) + self._gzip.flush()
        body, length = faults.broken_body(body, self._directives)
        head = response_head(
            status,
            self._attempt.request_id,
            content_type=content_type,
            length=length,
            gzipped=self._gzip is not None,
            retry_after_seconds=retry_after_seconds,
        )
        if self._directives:
            self._connection.write(head)
            head = b""
            await self._before_body()
            # Without a stream, `error=mid` has become a whole answer before this.
            if faults.break_at(self._directives, "mid") not in (None, "error=mid"):
                self._write(body[: len(body) // 2])
                await self._break_at("mid")
            parts = faults.chunks(body, self._directives)
            for part in parts[:-1]:
                self._write(part)
                await self._connection.drained()
                await asyncio.sleep(self._pace_seconds)
            body = parts[-1] if parts else b""
        self._attempt.bytes_written += len(body)
        await self._end(delivered)
        self._connection.write(head + body)
        self._attempt.sent()
        if "wrong_content_length" in self._directives:
            self._connection.close()

    async def send_stream(self, pieces: Iterable[Piece], deltas: int, *, chunked: bool) -> None:
        """Send the events; the last one goes out after the journal has the outcome on disk."""
        self._attempt.status = 200
        self._is_stream = True
        self._chunked = chunked
        head = response_head(
            200,
            self._attempt.request_id,
            content_type=b"text/event-stream; charset=utf-8",
            length=None,
            chunked=chunked,
            gzipped=self._gzip is not None,
        )
        self._connection.write(head)
        breaks_at = None
        if self._directives:
            await self._before_body()
            pieces = faults.disturb(pieces, self._directives)
            if faults.break_at(self._directives, "mid"):
                breaks_at = faults.deltas_before_break(self._directives, deltas)
        held: Piece | None = None
        for piece in pieces:
            if held is not None:
                if breaks_at is not None and held.kind is PieceKind.DELTA and self._attempt.deltas >= breaks_at:
                    break
                await self._send_piece(held)
            held = piece
        if breaks_at is not None:
            self._flush()
            await self._break_at("mid")
        if held is not None:
            self._count(held)
            self._put(frame(held, line_end=self._line_end))
        await self._end_stream(faults.outcome(self._directives, streamed=True, chat=self._chat))

    @property
    def _line_end(self) -> bytes:
        return b"\r\n" if "crlf" in self._directives else b"\n"

    async def _send_piece(self, piece: Piece) -> None:
        is_delta = piece.kind is PieceKind.DELTA
        if is_delta and self._pace_seconds and self._attempt.deltas:
            await asyncio.sleep(self._pace_seconds)
        self._count(piece)
        self._put(frame(piece, line_end=self._line_end))
        if self._eager or self._buffered_bytes >= COALESCED_BYTES:
            self._flush()
            await self._connection.drained()
            if not self._pace_seconds:
                # A long stream without a pace lets the others have their turn.
                await asyncio.sleep(0)

    def _count(self, piece: Piece) -> None:
        if piece.kind is PieceKind.DELTA:
            self._attempt.deltas += 1
            self._attempt.text_chars += piece.text_chars
        if piece.usage is not None:
            self._attempt.usage = piece.usage

    def _put(self, raw: bytes) -> None:
        self._buffer.append(raw)
        self._buffered_bytes += len(raw)

    def _take_buffer(self, *, last: bool) -> list[bytes]:
        """What waits to be written, compressed and cut into the writes it shall go out in."""
        raw = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        if self._gzip is not None:
            raw = self._gzip.compress(raw) + self._gzip.flush(zlib.Z_FINISH if last else zlib.Z_SYNC_FLUSH)
        return faults.chunks(raw, self._directives) if raw else []

    def _flush(self) -> None:
        for part in self._take_buffer(last=False):
            self._write(b"%x\r\n%b\r\n" % (len(part), part) if self._chunked else part)

    async def _end_stream(self, delivered: str) -> None:
        """Journal the outcome, then write what is left and the end of the response."""
        parts = self._take_buffer(last=True)
        writes = [b"%x\r\n%b\r\n" % (len(part), part) if self._chunked else part for part in parts]
        self._attempt.bytes_written += sum([len(written) for written in writes])
        await self._end(delivered)
        if len(writes) <= 1:
            self._connection.write(b"".join(writes) + (b"0\r\n\r\n" if self._chunked else b""))
        else:
            for written in writes:
                self._connection.write(written)
                await asyncio.sleep(0)
            self._connection.write(b"0\r\n\r\n" if self._chunked else b"")
        self._attempt.sent()
        if not self._chunked:
            self._connection.close()

    def _write(self, raw: bytes) -> None:
        self._attempt.bytes_written += len(raw)
        self._connection.write(raw)

    async def _end(self, delivered: str) -> None:
        self._attempt.end(delivered)
        if self._journal.must_sync:
            await self._journal.synced()

    async def _before_body(self) -> None:
        await self._break_at("after_headers")
        if "first" in self._directives:
            await asyncio.sleep(self._directives.number("first", 0) / 1_000)

    async def _break_at(self, moment: faults.Moment) -> None:
        """End the response here if a directive says so."""
        name = faults.break_at(self._directives, moment)
        if name is None:
            return
        if name.startswith("hang"):
            self._attempt.hanging = name
            # The end of the connection, or of the sandbox, cancels this wait.
            await asyncio.get_running_loop().create_future()
        if name.startswith("error"):
            self._put(frame(faults.error_piece(chat=self._chat, request_id=self._attempt.request_id)))
        if name.startswith(("error", "close")) and self._is_stream:
            await self._end_stream(FAILED_PREFIX + name)
            raise ResponseBrokenError(name)
        await self._end(FAILED_PREFIX + name)
        if name.startswith("reset"):
            if moment != "before_headers":
                await asyncio.sleep(SECONDS_BEFORE_RESET)
            self._connection.reset()
        else:
            self._connection.close()
        raise ResponseBrokenError(name)
