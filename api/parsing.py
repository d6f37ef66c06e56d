"""Bodies of the API: JSON in UTF-8, whose names stand once, and which has nothing that could not be answered with."""

import codecs
import json
from collections.abc import Mapping
from typing import IO, Any

from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser

MAX_NESTING = 50  # Deeper than any body that there is.
UTF_8 = codecs.lookup("utf-8").name


class StrictJsonParser(BaseParser):
    """What is no JSON object of this API is told apart by what is wrong with it, and never fails in our hands."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        request = (parser_context or {}).get("request")
        charset = request.content_params.get("charset", UTF_8) if request is not None else UTF_8
        if not _is_utf_8(charset):
            raise ParseError("JSON is written in UTF-8, and no other charset.")
        return read_json(stream.read())


def read_json(content: bytes) -> Any:
    """Return what a body says. Raises ParseError."""
    try:
        text = content.decode("utf-8")
        found = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise ParseError("The body is not UTF-8.") from None
    except RecursionError:
        raise ParseError(_TOO_DEEP) from None
    except ValueError as error:
        raise ParseError(f"The body is no JSON: {error}"[:300]) from None
    _check(found, MAX_NESTING)
    return found


_TOO_DEEP = f"The body is nested deeper than {MAX_NESTING} levels."


def _check(found: Any, levels: int) -> None:
    """Refuse what is too deep, and halves of surrogate pairs: they are no text, and no answer could repeat them."""
    if isinstance(found, str):
        if not found.isascii() and any("\ud800" <= character <= "\udfff" for character in found):
            raise ParseError("The body has half of a surrogate pair, which is no character.")
        return
    if not isinstance(found, dict | list):
        return
    if not levels:
        raise ParseError(_TOO_DEEP)
    for name, inner in found.items() if isinstance(found, dict) else enumerate(found):
        _check(name, levels)
        _check(inner, levels - 1)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands in one object twice.")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number.")


def _is_utf_8(charset: str) -> bool:
    try:
        return codecs.lookup(charset or UTF_8).name == UTF_8
    except LookupError:
        return False
