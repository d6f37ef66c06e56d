"""How directives disturb a reply: its events, its bytes, and the moments at which it breaks. Pure."""

import re
from collections.abc import Iterable, Iterator
from typing import Literal

import orjson

from sandbox.directives import Directives
from sandbox.errors import error_fields
from sandbox.journal import COMPLETE, FAILED_PREFIX
from sandbox.pieces import Piece, PieceKind

Moment = Literal["before_headers", "after_headers", "mid"]

BROKEN_WHEN_WHOLE = (
    "no_message_stop",
    "no_done",
    "malformed_sse",
    "bad_json",
    "truncated_json",
    "wrong_content_length",
    "out_of_order_index",
)
"""Directives under which a response is no valid reply although every byte of it was sent."""
EXCESS_CONTENT_LENGTH = 64
BAD_JSON = b"sandbox: this is not JSON"
_AFTER_LEAD_BYTE = re.compile(rb"(?<=[\xc2-\xf4])")


def outcome(directives: Directives, *, streamed: bool, chat: bool) -> str:
    """What the journal calls a response whose last byte is about to go out."""
    for name in BROKEN_WHEN_WHOLE:
        if name in directives and _applies(name, streamed=streamed):
            return FAILED_PREFIX + name
    if chat and streamed and directives.word("finish") == "none":
        return FAILED_PREFIX + "finish=none"
    return COMPLETE


def _applies(name: str, *, streamed: bool) -> bool:
    return streamed != (name in ("bad_json", "truncated_json", "wrong_content_length"))


def break_at(directives: Directives, moment: Moment) -> str | None:
    """The directive that ends the response at this moment, as the journal names it."""
    for name in ("hang", "reset", "close", "error"):
        if directives.word(name) == moment:
            return f"{name}={moment}"
    return None


def deltas_before_break(directives: Directives, deltas: int) -> int:
    """How many deltas go out before a fault that is `mid`."""
    return directives.number("after", deltas // 2)


def disturb(pieces: Iterable[Piece], directives: Directives) -> Iterator[Piece]:
    """The events with what the directives put between them."""
    malformed = "malformed_sse" in directives
    comments = "comments" in directives
    pings = "ping" in directives
    for piece in pieces:
        if comments:
            yield Piece(b"sandbox comment", None, PieceKind.COMMENT)
        if piece.kind is PieceKind.DELTA:
            if pings:
                yield Piece(b'{"type":"ping"}', "ping")
            if malformed:
                malformed = False
                yield Piece(piece.payload[: len(piece.payload) // 2], piece.event)
                continue
        yield piece


def error_piece(*, chat: bool, request_id: str) -> Piece:
    """The error event of `error=mid`."""
    payload = orjson.dumps(error_fields(529, "Overloaded", chat=chat, request_id=request_id))
    return Piece(payload, None if chat else "error")


def broken_body(body: bytes, directives: Directives) -> tuple[bytes, int]:
    """The body that is really sent, and the content-length that is claimed for it."""
    if "bad_json" in directives:
        body = BAD_JSON
    if "truncated_json" in directives:
        body = body[: len(body) // 2]
    if "wrong_content_length" in directives:
        return body, len(body) + EXCESS_CONTENT_LENGTH
    return body, len(body)


def chunks(raw: bytes, directives: Directives) -> list[bytes]:
    """Cut bytes where the directives want writes to end."""
    size = directives.number("drip", 0)
    if size:
        return [raw[index : index + size] for index in range(0, len(raw), size)]
    if "split_utf8" in directives:
        return [part for part in _AFTER_LEAD_BYTE.split(raw) if part]
    return [raw]
