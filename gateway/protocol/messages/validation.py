"""Refusals of a client's request in Anthropic's own words, which clients know and Claude Code heals from. Pure."""

from typing import NoReturn

from gateway.protocol.errors import InvalidRequestError

ROLE_TEXT = "Input should be 'user' or 'assistant'"
SYSTEM_ROLE_TEXT = (
    'Unexpected role "system". The Messages API accepts a top-level `system` parameter, not "system" as an input'
    " message role."
)
PDF_TEXT = "This model does not support PDF input."
EXTRA_INPUTS_TEXT = "Extra inputs are not permitted"


def refuse(path: str, text: str, *, code: str = "invalid_request") -> NoReturn:
    """Raise InvalidRequestError with `<path>: <text>`."""
    raise InvalidRequestError(f"{path}: {text}", code=code, param=path)


def refuse_missing(path: str) -> NoReturn:
    refuse(path, "Field required")


def refuse_tag(path: str, tag: object, expected: tuple[str, ...]) -> NoReturn:
    """Refuse an object whose `type` is none of `expected`."""
    shown = str(tag)[:100]
    tags = ", ".join(f"'{name}'" for name in expected)
    refuse(path, f"Input tag '{shown}' found using 'type' does not match any of the expected tags: {tags}")


def require_text(path: str, value: object, *, min_chars: int = 0, max_chars: int | None = None) -> str:
    """Return `value` when it is a string within the bounds. Raises InvalidRequestError."""
    if not isinstance(value, str):
        refuse(path, "Input should be a valid string")
    if len(value) < min_chars:
        refuse(path, f"String should have at least {min_chars} character{'' if min_chars == 1 else 's'}")
    if max_chars is not None and len(value) > max_chars:
        refuse(path, f"String should have at most {max_chars} characters")
    return value


def require_integer(path: str, value: object, *, minimum: int, maximum: int) -> int:
    """Return `value` when it is a whole number within the bounds; True is none. Raises InvalidRequestError."""
    if type(value) is not int:
        refuse(path, "Input should be a valid integer")
    if value < minimum:
        refuse(path, f"Input should be greater than or equal to {minimum}")
    if value > maximum:
        refuse(path, f"Input should be less than or equal to {maximum}")
    return value


def require_fraction(path: str, value: object) -> None:
    """Accept a number from 0 to 1. Raises InvalidRequestError."""
    if type(value) is not int and type(value) is not float:
        refuse(path, "Input should be a valid number")
    if value < 0:
        refuse(path, "Input should be greater than or equal to 0")
    if value > 1:
        refuse(path, "Input should be less than or equal to 1")


def require_boolean(path: str, value: object) -> bool:
    if not isinstance(value, bool):
        refuse(path, "Input should be a valid boolean")
    return value


def require_object(path: str, value: object) -> dict[str, object]:
    if not isinstance(value, dict):
        refuse(path, "Input should be a valid dictionary")
    return value


def require_list(path: str, value: object, *, max_items: int) -> list[object]:
    if not isinstance(value, list):
        refuse(path, "Input should be a valid list")
    if len(value) > max_items:
        refuse(path, f"List should have at most {max_items} items after validation, not {len(value)}")
    return value
