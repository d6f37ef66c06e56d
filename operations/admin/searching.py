"""The search of the admin's lists: what begins with "=" in `search_fields` is looked up whole, by its index.

Django compares such fields as upper-case text, which no index helps with, and joins them with OR across tables. Here a
word is converted to what the column holds, a row behind a foreign key is found first, and the first field that has the
word is what is meant.
"""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import BigIntegerField, EmailField, Model, Q, QuerySet, SlugField, UUIDField
from django.utils.text import smart_split, unescape_string_literal

from billing.request_id import parse_request_id

EXACT = "="
MAX_WORDS = 5
MAX_RELATED = 100
LARGEST_NUMBER = BigIntegerField.MAX_BIGINT


def search(rows: QuerySet[Any], fields: Sequence[str], text: str, *, newest: int | None = None) -> QuerySet[Any]:
    """Return the rows in which every word of the text is found.

    With `newest`, only so many of the newest rows are read through, where no word is found by an index.
    """
    exact = [field.removeprefix(EXACT) for field in fields if field.startswith(EXACT)]
    contained = [field for field in fields if not field.startswith(EXACT)]
    is_narrow, is_read_through = newest is None, False
    for word in _words(text.replace("\x00", "")):
        found = next((q for field in exact if (q := _find(rows.model, field.split("__"), word))), None)
        if found is not None:
            rows, is_narrow = rows.filter(found), True
        elif contained:
            conditions = (_contains(rows.model, field.split("__"), word) for field in contained)
            rows, is_read_through = rows.filter(reduce(or_, conditions)), True
        else:
            return rows.none()
    if is_read_through and not is_narrow:
        last = rows.model._default_manager.order_by("-pk").values_list("pk", flat=True).first() or 0
        rows = rows.filter(pk__gt=last - (newest or 0))
    return rows


def _contains(model: type[Model], path: Sequence[str], word: str) -> Q:
    """Return the condition that a text has the word within. Rows behind a foreign key are found first."""
    if len(path) == 1 or not model._meta.get_field(path[0]).many_to_one:
        return Q((f"{'__'.join(path)}__icontains", word))
    field = model._meta.get_field(path[0])
    related = field.related_model
    condition = _contains(related, path[1:], word)  # type: ignore[arg-type]  # only relations have a longer path
    ids = related._default_manager.filter(condition).values_list("pk", flat=True)[:MAX_RELATED]  # type: ignore[union-attr]
    return Q((f"{field.name}__in", list(ids)))


def _words(text: str) -> list[str]:
    words = []
    for word in smart_split(text):
        is_quoted = word[0] in "\"'" and word[0] == word[-1] and len(word) > 1
        words.append(unescape_string_literal(word) if is_quoted else word)
    return words[:MAX_WORDS]


def _find(model: type[Model], path: Sequence[str], word: str) -> Q | None:
    """Return the condition on `model` that a word in the field at the end of `path` means; None where no row has it."""
    field = model._meta.get_field(path[0])
    if len(path) > 1:
        related = field.related_model
        condition = _find(related, path[1:], word)  # type: ignore[arg-type]  # only relations have a longer path
        if condition is None:
            return None
        ids = list(related._default_manager.filter(condition).values_list("pk", flat=True)[:MAX_RELATED])  # type: ignore[union-attr]
        return Q((f"{field.name}__in", ids))
    value = _convert(field, word)
    if value is None or not model._default_manager.filter((field.name, value)).exists():
        return None
    return Q((field.name, value))


def _convert(field: Any, word: str) -> UUID | int | str | None:
    """Return a word as the column holds it, or None where it cannot hold it."""
    if isinstance(field, UUIDField):
        return parse_request_id(word)
    if isinstance(field, (SlugField, EmailField)):
        return word.lower()
    try:
        value: int | str = field.to_python(word)
    except ValidationError:
        return None
    if isinstance(value, int) and abs(value) > LARGEST_NUMBER:
        return None
    return value
