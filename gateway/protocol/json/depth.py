"""How deep JSON is nested. Pure. What is read must be written again, and the encoder bears less than the parser."""

from typing import Any

MAX_DEPTH = 200  # Nested objects and arrays; orjson reads 1,024 of them and writes 254.


def is_too_deep(raw: bytes, value: Any) -> bool:
    """True when `value`, which was read from `raw`, is nested more than MAX_DEPTH levels deep."""
    # Every level opens with a bracket, so few brackets need no walk.
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
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
