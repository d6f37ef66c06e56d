"""JSON whose texts are not whole characters, as models write it: halves of a surrogate pair, cut UTF-8. Pure.

A model writes in tokens, and one emoji may be several of them. A provider that escapes its JSON then sends the halves
of the emoji's surrogate pair in two deltas, of which neither is legal Unicode. orjson refuses both.
"""

import json
from codecs import BOM_UTF8
from typing import Any, NoReturn

import orjson

ESCAPED_SURROGATES = (b"\\ud", b"\\uD")
MAX_WHOLE_NUMBER_DIGITS = 40
FIRST_HALF, LAST_HALF = "\ud800", "\udbff"  # Of the first halves of pairs.


def load_broken(raw: bytes) -> Any:
    """Return the value in JSON that orjson refuses; its texts may hold halves. Raises ValueError or RecursionError.

    Bytes that are no UTF-8 become U+FFFD.
    """
    is_utf8 = True
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        is_utf8, text = False, raw.decode(errors="replace")
    if is_utf8 and not any(mark in raw for mark in ESCAPED_SURROGATES):
        raise ValueError("all of its texts are whole")
    return json.loads(text, parse_constant=_refuse_constant)


def load_odd(raw: bytes) -> Any:
    """Return the value in what is nearly JSON, as programs write the numbers of a model: Infinity, NaN, thousands of
    digits, also control characters within texts. None where it is not even that. Nobody can be sent such a value.
    """
    try:
        return json.loads(raw, strict=False, parse_int=_read_whole_number)
    except (ValueError, RecursionError):
        return None


def mend(text: str) -> str:
    """Return `text` with the two halves of a character joined, and with U+FFFD for a half that stands alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def mend_all(value: Any) -> Any:
    """Return `value`, nested a few hundred levels at most, with all its texts mended."""
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, list):
        return [mend_all(item) for item in value]
    if isinstance(value, dict):
        return {mend(name): mend_all(item) for name, item in value.items()}
    return value


class HalfJoiner:
    """Joins a text that comes in pieces: a first half at the end of one waits for the next, and goes with the last."""

    __slots__ = ("half",)

    def __init__(self) -> None:
        self.half = ""

    def join(self, text: str) -> str:
        """Return what of the text is whole characters by now."""
        if not text:
            return text
        text, self.half = self.half + text, ""
        if FIRST_HALF <= text[-1] <= LAST_HALF:
            text, self.half = text[:-1], text[-1]
        return mend(text)

    def end(self) -> str:
        """Return what stands for the half that still waits, now that no more comes; "" where none does."""
        lone, self.half = mend(self.half), ""
        return lone


def load_json(raw: bytes) -> tuple[Any, bool]:
    """Return the value in `raw`, and whether its texts may hold halves. Raises ValueError or RecursionError."""
    try:
        return orjson.loads(raw), False
    except orjson.JSONDecodeError as error:
        if is_depth_error(error):
            raise RecursionError from None
        if raw.startswith(BOM_UTF8):  # Who reads JSON may ignore it (RFC 8259, 8.1).
            return load_json(raw.removeprefix(BOM_UTF8))
        try:
            return load_broken(raw), True
        except ValueError:
            raise error from None


def is_depth_error(error: orjson.JSONDecodeError) -> bool:
    """True when orjson gave up at its own depth limit."""
    return "depth limit" in str(error) or "recursion" in str(error).lower()


def _read_whole_number(digits: str) -> int | float:
    """Python refuses to read thousands of digits as a whole number."""
    return int(digits) if len(digits) <= MAX_WHOLE_NUMBER_DIGITS else float(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
