"""Receives the body of a request, once its key is known, within bounds of size, time and room."""

import asyncio
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from django.conf import settings

from gateway.errors import GatewayError, unavailable
from gateway.http.pieces import join_pieces

MAX_LENGTH_DIGITS = 19
GRACE_SECONDS = 15.0  # However little has come by then,
MIN_BYTES_PER_SECOND = 8 * 1024  # from then on a body comes at least at this rate on average.
ROOM_SHARE = 2  # One organization, with all of its keys, may take this part of the room for bodies.
DECODED_PIECE_BYTES = 256 * 1024  # Of a compressed body, between two looks at other requests.
HEADERS_OF_BODIES = frozenset([b"content-length", b"content-encoding", b"transfer-encoding", b"expect"])
CODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 47}  # zlib's wbits: gzip alone; gzip or zlib.

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class ClientLeftError(Exception):
    """The client closed the connection before its request was here."""


class BodyRoom:
    """How many bytes of bodies are in memory at once, in all and for each organization."""

    def __init__(self) -> None:
        self._taken = 0
        self._taken_by: Counter[int] = Counter()

    def take(self, organization_id: int, size: int) -> None:
        """Raises GatewayError 503 while there is no room."""
        most = settings.MAX_BODY_ROOM_BYTES
        if self._taken + size > most or self._taken_by[organization_id] + size > most // ROOM_SHARE:
            raise unavailable("Too many large requests are being received right now.", code="no_room_for_body")
        self._taken += size
        self._taken_by[organization_id] += size

    def give_back(self, organization_id: int, size: int) -> None:
        self._taken -= size
        self._taken_by[organization_id] -= size
        if self._taken_by[organization_id] <= 0:
            del self._taken_by[organization_id]


class BodyReader:
    """Reads one body. `close()` gives its room back, when nobody needs the body any more."""

    def __init__(self, headers: list[tuple[bytes, bytes]], receive: Receive, *, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        said = [(name, value) for name, value in headers if name in HEADERS_OF_BODIES]
        self._length = _read_length(said)
        self._coding = _join_values(said, b"content-encoding")
        self._transfer_coding = _join_values(said, b"transfer-encoding")
        self._room: BodyRoom | None = None
        self._organization_id = 0
        self._size = 0
        self._has_expectation = any(name == b"expect" for name, _ in said)
        self._is_asked_for = False

    @property
    def is_waited_for(self) -> bool:
        """True when the client waits to be told to send its body (Expect: 100-continue), and was not told."""
        return self._has_expectation and not self._is_asked_for

    async def read(self, room: BodyRoom, organization_id: int) -> bytes:
        """Return the body. Raises GatewayError 400, 408, 413, 415, 503, and ClientLeftError."""
        if self._length > self._max_bytes:
            raise self._too_large()
        if self._transfer_coding:
            _refuse_transfer_coding(self._transfer_coding)
        decoder = _decoder_for(self._coding)
        self._room, self._organization_id = room, organization_id
        self._is_asked_for = True
        message = await self._receive()
        parts: list[bytes] = []
        started = time.monotonic()
        while True:
            if message["type"] == "http.disconnect":
                raise ClientLeftError
            part = message.get("body", b"")
            if decoder is None:
                self._grow(len(part))
                parts.append(part)
            else:
                await self._decode(decoder, part, parts)
            if not message.get("more_body", False):
                break
            message = await self._receive_in_time(started)
        if decoder is not None and not decoder.eof:
            raise GatewayError(400, "invalid_content_encoding", f"The body is not a complete {self._coding} stream.")
        return await join_pieces(parts)

    def close(self) -> None:
        if self._room is not None:
            self._room.give_back(self._organization_id, self._size)
            self._room = None

    async def _receive_in_time(self, started: float) -> MutableMapping[str, Any]:
        seconds = started + GRACE_SECONDS + self._size / MIN_BYTES_PER_SECOND - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, seconds)):
                return await self._receive()
        except TimeoutError:
            raise GatewayError(408, "request_timeout", "The request body arrived too slowly.") from None

    async def _decode(self, decoder: "zlib._Decompress", part: bytes, parts: list[bytes]) -> None:
        """Decode what came, a piece at a time: a small body may hold a large one, and others wait meanwhile."""
        rest = part
        if rest and decoder.eof:
            raise self._is_not_coded()
        while rest and not decoder.eof:
            try:
                piece = decoder.decompress(rest, DECODED_PIECE_BYTES)
            except zlib.error:
                raise self._is_not_coded() from None
            if decoder.unused_data:  # It would be lost in silence.
                raise self._is_not_coded()
            self._grow(len(piece))
            parts.append(piece)
            rest = decoder.unconsumed_tail
            if rest:
                await asyncio.sleep(0)

    def _is_not_coded(self) -> GatewayError:
        text = f"The body is not what its Content-Encoding says: {self._coding}."
        return GatewayError(400, "invalid_content_encoding", text)

    def _grow(self, size: int) -> None:
        if self._size + size > self._max_bytes:
            raise self._too_large()
        if self._room is not None and size:
            self._room.take(self._organization_id, size)
            self._size += size

    def _too_large(self) -> GatewayError:
        limit = self._max_bytes // 1024**2
        return GatewayError(413, "request_too_large", f"The request is larger than {limit} MiB.")


def _read_length(headers: list[tuple[bytes, bytes]]) -> int:
    """Return the length that the head announces; 0 when it announces none."""
    for name, value in headers:
        if name == b"content-length":
            # More digits than any length has are not worth reading; Python refuses to read thousands of them.
            return int(value) if len(value) <= MAX_LENGTH_DIGITS else 10**MAX_LENGTH_DIGITS
    return 0


def _join_values(headers: list[tuple[bytes, bytes]], wanted: bytes) -> str:
    return b", ".join([value for name, value in headers if name == wanted]).decode("latin-1")


def _refuse_transfer_coding(coding: str) -> None:
    """Raise GatewayError 415 for a body that is more than cut into chunks: the parser takes away the chunks only."""
    if any(name.strip().lower() not in ("", "identity", "chunked") for name in coding.split(",")):
        raise GatewayError(
            415,
            "unsupported_content_encoding",
            f"Transfer-Encoding {coding!r} is not supported. Send the body compressed with Content-Encoding instead.",
        )


def _decoder_for(coding: str) -> "zlib._Decompress | None":
    name = coding.strip().lower()
    if name in ("", "identity"):
        return None
    if name not in CODINGS:
        raise GatewayError(
            415,
            "unsupported_content_encoding",
            f"Content-Encoding {coding!r} is not supported. Send the body uncompressed, or with gzip or deflate.",
        )
    return zlib.decompressobj(CODINGS[name])
