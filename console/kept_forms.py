"""What somebody typed into a page that had expired: kept until they signed in again, or shown to be sent once more.

Passwords, codes and files are never kept, nor what is too long. Nothing is sent again by itself: the person is asked.
"""

import time
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest

from console.kept_words import in_words

KEPT = "kept_form"
MAX_KEPT_CHARS = 20_000
MAX_KEPT_SECONDS = 3600
NEVER_KEPT = ("password", "code", "csrfmiddlewaretoken")


@dataclass(frozen=True, slots=True)
class KeptForm:
    path: str
    fields: list[tuple[str, str]]

    @property
    def shown(self) -> list[tuple[str, str]]:
        """What a person typed or chose, under a word for each field."""
        return list(in_words(self.fields))


def keep_form(request: HttpRequest) -> bool:
    """Keep what was sent to this page, for when its sender comes back. False when there is nothing that can be kept."""
    fields = _fields_of(request)
    if not fields or _is_too_long(fields):
        return False
    request.session[KEPT] = {"path": request.path, "fields": fields, "at": time.time()}
    return True


def whole_form(request: HttpRequest) -> KeptForm | None:
    """Return all that was sent to this page; None when some of it is never kept, or there is too much of it."""
    fields = _fields_of(request)
    typed = set(request.POST) - {"csrfmiddlewaretoken"}
    if typed != {name for name, _ in fields} or request.FILES or _is_too_long(fields):
        return None
    return KeptForm(request.get_full_path(), fields)


def _fields_of(request: HttpRequest) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, values in request.POST.lists()
        if not any(word in name for word in NEVER_KEPT)
        for value in values
    ]


def _is_too_long(fields: list[tuple[str, str]]) -> bool:
    return sum(len(name) + len(value) for name, value in fields) > MAX_KEPT_CHARS


def read_kept_form(request: HttpRequest, *, below: str) -> KeptForm | None:
    """Return what was typed into a page below this address; None when it was long ago or elsewhere."""
    kept: dict[str, Any] | None = request.session.get(KEPT)
    if kept is None or not kept["path"].startswith(below) or time.time() - kept["at"] > MAX_KEPT_SECONDS:
        return None
    return KeptForm(kept["path"], [(name, value) for name, value in kept["fields"]])


def forget_kept_form(request: HttpRequest) -> None:
    """Forget what was kept for this page, because its form has come."""
    if KEPT in request.session and request.session[KEPT]["path"] == request.path:
        del request.session[KEPT]
