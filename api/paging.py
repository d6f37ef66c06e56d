"""Cursor paging: `limit` and `cursor` in, `data`, `has_more` and `next_cursor` out."""

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db.models import Model, QuerySet
from drf_spectacular.utils import OpenApiParameter
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.request import Request

DEFAULT_ROWS, MAX_ROWS = 50, 100
MAX_CURSOR_CHARS = 100
CURSOR = re.compile(r"([a-z-]{1,20}):([0-9a-f.-]{1,60})")
ROW_ID = re.compile(r"[0-9]{1,18}")

PAGE_PARAMETERS = [
    OpenApiParameter("limit", {"type": "integer", "minimum": 1, "maximum": MAX_ROWS, "default": DEFAULT_ROWS}),
    OpenApiParameter("cursor", str, description="`next_cursor` of the page before."),
]
PAGE = frozenset({"limit", "cursor"})

Row = TypeVar("Row", bound=Model)


class InvalidLimitError(APIException):
    status_code = 400
    default_code = "invalid_limit"
    default_detail = f"limit: A whole number from 1 to {MAX_ROWS}."


class InvalidCursorError(APIException):
    status_code = 400
    default_code = "invalid_cursor"
    default_detail = "cursor: This is no cursor of this list."


class PagedAnswer(serializers.Serializer[Any]):
    """A page of a list; whoever inherits from it says what `data` holds."""

    has_more = serializers.BooleanField()
    next_cursor = serializers.CharField(allow_null=True)


@dataclass(frozen=True, slots=True)
class Page:
    """What of a list belongs on one page: `limit` of it, after `place`, or from its beginning."""

    limit: int
    place: str | None
    kind: str

    def of(self, rows: "QuerySet[Row]", show: Callable[[Sequence[Row]], list[dict[str, Any]]]) -> dict[str, Any]:
        """Return the answer: rows by falling id, and where the next page begins."""
        if self.place is not None:
            rows = rows.filter(pk__lt=int(self.place))
        return self.cut(rows.order_by("-pk"), lambda row: str(row.pk), show)

    def cut(
        self,
        found: "Sequence[Any] | QuerySet[Any]",
        place: Callable[[Any], str],
        show: Callable[[Any], list[dict[str, Any]]],
    ) -> dict[str, Any]:
        """Return the answer of a list that goes by something else: `found` begins after `place` already."""
        some = list(found[: self.limit + 1])
        kept = some[: self.limit]
        has_more = len(some) > self.limit
        return {
            "data": show(kept),
            "has_more": has_more,
            "next_cursor": _write_cursor(self.kind, place(kept[-1])) if has_more else None,
        }


def read_page(request: Request, kind: str, *, places: re.Pattern[str] = ROW_ID) -> Page:
    """Return the page that is asked for. Raises InvalidLimitError and InvalidCursorError."""
    return Page(_read_limit(request.query_params.get("limit")), _read_cursor(request, kind, places), kind)


def _read_limit(text: str | None) -> int:
    if text is None:
        return DEFAULT_ROWS
    if not (text.isascii() and text.isdigit() and len(text) <= 6 and 1 <= int(text) <= MAX_ROWS):
        raise InvalidLimitError
    return int(text)


def _read_cursor(request: Request, kind: str, places: re.Pattern[str]) -> str | None:
    text = request.query_params.get("cursor")
    if text is None:
        return None
    try:
        if len(text) > MAX_CURSOR_CHARS or not text.isascii():
            raise ValueError
        found = CURSOR.fullmatch(base64.urlsafe_b64decode(text.encode() + b"=" * (-len(text) % 4)).decode("ascii"))
    except (ValueError, binascii.Error):
        found = None
    if found is None or found[1] != kind or places.fullmatch(found[2]) is None:
        raise InvalidCursorError
    return found[2]


def _write_cursor(kind: str, place: str) -> str:
    return base64.urlsafe_b64encode(f"{kind}:{place}".encode()).rstrip(b"=").decode()
