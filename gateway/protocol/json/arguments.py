"""The arguments of a tool call, as models write them. Pure."""

from typing import Any

from gateway.protocol.json.broken_text import load_broken, mend_all
from gateway.protocol.json.depth import is_too_deep
from gateway.protocol.json.exact import decode_text
from gateway.protocol.json.structure import MAX_STRUCTURE, TooComplexError, check_structure


def read_arguments(text: str) -> dict[str, Any] | None:
    """Return the object in a tool call's complete arguments, None when it is broken off or no object.

    Nothing and null mean {}. An object that was encoded twice is decoded twice.
    """
    if not text.strip():
        return {}
    try:
        value = _decode_arguments(text)
        if isinstance(value, str):
            value = _decode_arguments(value) if value.strip() else {}
    except (ValueError, RecursionError, TooComplexError):
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) and not is_too_deep(text.encode(), value) else None


def _decode_arguments(text: str) -> Any:
    if len(text) > MAX_STRUCTURE:
        check_structure(text.encode())
    try:
        return decode_text(text)
    except ValueError:  # A model cuts characters in two as anybody does who writes in pieces.
        return mend_all(load_broken(text.encode()))
