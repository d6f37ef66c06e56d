"""Forms that do their work once: sent again (a reload, a double click), the page says so instead of doing it twice.

The template holds make_form_id() in a hidden field `form_id`. Who comes first is decided by Postgres, so that two
requests at the same moment do the work once too.
"""

import hashlib
import secrets

from django.core.cache import cache
from django.http import HttpRequest

FORM_ID_BYTES = 16
REMEMBERED_SECONDS = 86_400


def make_form_id() -> str:
    return secrets.token_urlsafe(FORM_ID_BYTES)


def claim_form(request: HttpRequest) -> bool:
    """Take the one use of the form that was sent; False when it was taken before. Whoever does no work releases it."""
    return bool(cache.add(_name(request), 1, REMEMBERED_SECONDS))


def release_form(request: HttpRequest) -> None:
    """Let the form be sent again, because nothing was done."""
    cache.delete(_name(request))


def is_used(request: HttpRequest) -> bool:
    """Say whether the form has done its work, before its fields are looked at."""
    return cache.get(_name(request)) is not None


def _name(request: HttpRequest) -> str:
    form = f"{request.user.pk} {request.POST.get('form_id', '')}"
    return f"form-{hashlib.sha256(form.encode()).hexdigest()}"
