"""How deep JSON is nested. Pure. What is read must be written again, and the encoder bears less than the parser."""

from typing import Any

import orjson

MAX_DEPTH = 200  # Nested objects and arrays; orjson reads 1,024 of them and writes 254.
WRITTEN_DEPTH = 254
# Written within so many lists that one level too many is one too many for orjson, that is the fastest walk there is,
# unless there is much text to copy.
MAX_WRITTEN_BYTES = 2 * 1024 * 1024


def is_too_deep(raw: bytes, value: Any) -> bool:
    """True when `value`, which was read from `raw`, is nested more than MAX_DEPTH levels deep."""
    # Every level opens with a bracket, so few brackets need no walk.
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    if len(raw) <= MAX_WRITTEN_BYTES and _can_be_written(value):
        return False
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return False
    return True


def _can_be_written(value: Any) -> bool:
    wrapped = value
    for _ in range(WRITTEN_DEPTH - MAX_DEPTH):
        wrapped = [wrapped]
    try:
        orjson.dumps(wrapped)
    except TypeError:  # It is too deep, or holds what only others write: the walk tells which.
        return False
    return True
