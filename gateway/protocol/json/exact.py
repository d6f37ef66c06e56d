"""JSON with whole numbers of any size. Pure.

orjson reads what does not fit into 64 bits as a float, which rounds it. It is fast, so it does the work wherever that
does not show; where it may show, the standard library does it again.
"""

import json
import re
from typing import Any

import orjson

# How orjson writes a float of 1e16 or more. In a string it can stand only by chance: then reading again is in vain.
LARGE_FLOAT = re.compile(rb"e\+[0-9]{2,3}[,\]}]")
MAX_PLUSES_TO_FIND = 64  # Finding one byte is much faster than the pattern, as long as there are few of them.
LONG_NUMBER = re.compile(r"[0-9]{19}")  # What does not fit into 64 bits has as many digits at least.


def encode(value: Any) -> bytes:
    """Return compact JSON."""
    try:
        return orjson.dumps(value)
    except TypeError:  # It holds a number that only the standard library writes.
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def decode_exactly(raw: bytes) -> Any:
    """Return the value in JSON that orjson has read before, and so is valid, with its whole numbers as they are."""
    return json.loads(raw)


def decode_text(text: str) -> Any:
    """Return the value in `text`, which is short. Raises orjson.JSONDecodeError."""
    value = orjson.loads(text)
    return json.loads(text) if LONG_NUMBER.search(text) else value


def may_be_rounded(encoded: bytes) -> bool:
    """True when JSON that orjson wrote shows a large float, which may have been a whole number once."""
    place = 0
    for _ in range(MAX_PLUSES_TO_FIND):
        place = encoded.find(b"+", place) + 1
        if not place:
            return False
        if LARGE_FLOAT.match(encoded, max(0, place - 2)):
            return True
    return LARGE_FLOAT.search(encoded, place) is not None
