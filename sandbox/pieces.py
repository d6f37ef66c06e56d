"""A piece of a stream: one server-sent event, with what the journal has to know about it. Pure."""

from enum import IntEnum
from typing import NamedTuple

from sandbox.usage import Usage


class PieceKind(IntEnum):
    """Only deltas are paced and counted."""

    OTHER = 0
    DELTA = 1
    COMMENT = 2


class Piece(NamedTuple):
    """One event before its framing."""

    payload: bytes
    """The JSON of the data line, a bare word such as [DONE], or the text of a comment."""
    event: str | None
    """The name of the event line; None where the protocol has none."""
    kind: PieceKind = PieceKind.OTHER
    text_chars: int = 0
    usage: Usage | None = None
    """The usage that this event reports."""


def frame(piece: Piece, *, line_end: bytes = b"\n") -> bytes:
    """The event as it goes over the wire."""
    if piece.kind is PieceKind.COMMENT:
        return b": " + piece.payload + line_end + line_end
    if piece.event is None:
        return b"data: " + piece.payload + line_end + line_end
    return b"event: " + piece.event.encode() + line_end + b"data: " + piece.payload + line_end + line_end
