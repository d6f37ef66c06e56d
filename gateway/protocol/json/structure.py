"""How much structure JSON has, found before it is parsed. Pure.

Text costs a parser a copy. Structure costs it an object per value, up to a hundred times its bytes, and all of that in
one call that holds up whatever else the process does. So it is counted first, piece by piece, and what has too much of
it is not parsed at all. Counted is only what stands outside strings: text may hold any characters.
"""

import re

from gateway.protocol.errors import ProtocolError

MAX_STRUCTURE = 125_000  # Braces and brackets that open, commas and colons, outside strings.
MAX_ESCAPES = 2_000_000  # Backslashes: a million tokens of text written as \uXXXX have fewer.
# Python keeps a string in one, two or four bytes a character, as its widest one needs: an emoji makes four of one.
MAX_WIDE_BYTES = 8 * 1024 * 1024  # Of strings with characters beyond ASCII, all together.
# Whole numbers beyond 64 bits are read and written by the standard library, five times slower: see exact_json.
MAX_EXACT_BYTES = 4 * 1024 * 1024
# A pattern takes twenty times as long to find nothing as this: every digit made a 0, and 19 of them in a row.
ZEROS_FOR_DIGITS = bytes.maketrans(b"123456789", b"000000000")
LONG_NUMBER = b"0" * 19
BEYOND_64_BITS = re.compile(rb"-[0-9]{19}|[0-9]{20}")
BEYOND_64_BITS_CHARS = 20
PIECE_BYTES = 256 * 1024
MARKS = (b",", b":", b"[", b"{")


class TooComplexError(ProtocolError):
    """JSON whose parsing would cost far more than its bytes tell. The text says what it has."""


def check_structure(raw: bytes) -> None:
    """Raise TooComplexError for JSON past one of the limits above. What is not JSON may pass: the parser tells."""
    if len(raw) > MAX_STRUCTURE:  # Fewer bytes cannot hold more.
        _StructureScan(raw).run()


class _StructureScan:
    """One pass over the bytes. It stops at the first limit, so what is dense is refused after its first pieces."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._needs_small_numbers = len(raw) > MAX_EXACT_BYTES
        self._structure = 0
        self._escapes = 0
        self._wide_bytes = 0
        self._is_in_string = False
        self._number_begun = b""  # What the last piece ended in, where that was outside a string.
        self._open_bytes = 0  # Of the string that the last piece ended in.
        self._open_is_wide = False

    def run(self) -> None:
        place = 0
        while place < len(self._raw):
            piece = self._raw[place : place + PIECE_BYTES]
            if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # A backslash and its character stay together.
                piece = self._raw[place : place + PIECE_BYTES + 1]
            place += len(piece)
            self._take(piece)

    def _take(self, piece: bytes) -> None:
        escapes = piece.count(b"\\")
        if escapes:
            self._escapes += escapes
            if self._escapes > MAX_ESCAPES:
                raise TooComplexError(f"more than {MAX_ESCAPES} escaped characters")
            piece = piece.replace(rb"\\", b"").replace(rb"\"", b"")
        parts = piece.split(b'"')  # Now every quote opens or closes a string: they take turns.
        outside = b'"'.join(parts[self._is_in_string :: 2])
        ends_in_string = self._is_in_string ^ (len(parts) % 2 == 0)
        self._structure += sum(map(outside.count, MARKS))
        if self._structure > MAX_STRUCTURE:
            raise TooComplexError(f"more than {MAX_STRUCTURE} values, keys, lists and objects")
        self._count_wide(parts, is_wide=_is_wide(piece), ends_in_string=ends_in_string)
        if self._needs_small_numbers:
            self._check_numbers(outside, ends_in_string=ends_in_string)
        self._is_in_string = ends_in_string

    def _count_wide(self, parts: list[bytes], *, is_wide: bool, ends_in_string: bool) -> None:
        """Add up the strings with wide characters; those that lie within one piece are judged together."""
        if self._is_in_string:
            self._open_bytes += len(parts[0])
            self._open_is_wide = self._open_is_wide or (is_wide and _is_wide(parts[0]))
        if len(parts) > 1:
            if self._open_is_wide:
                self._wide_bytes += self._open_bytes
            if is_wide:
                self._wide_bytes += sum(map(len, parts[1:-1]))
            self._open_bytes = len(parts[-1]) if ends_in_string else 0
            self._open_is_wide = ends_in_string and is_wide and _is_wide(parts[-1])
        if self._wide_bytes + self._open_bytes * self._open_is_wide > MAX_WIDE_BYTES:
            limit = MAX_WIDE_BYTES // 1024**2
            raise TooComplexError(f"more than {limit} MiB of text with characters beyond ASCII")

    def _check_numbers(self, outside: bytes, *, ends_in_string: bool) -> None:
        numbers = self._number_begun + outside
        if LONG_NUMBER in numbers.translate(ZEROS_FOR_DIGITS) and BEYOND_64_BITS.search(numbers):
            limit = MAX_EXACT_BYTES // 1024**2
            raise TooComplexError(f"more than {limit} MiB and a number of more than 64 bits")
        self._number_begun = b"" if ends_in_string else outside[-BEYOND_64_BITS_CHARS:]


def _is_wide(text: bytes) -> bool:
    return not text.isascii() or (b"\\" in text and rb"\u" in text)
