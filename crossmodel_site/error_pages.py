"""What people see when a page fails: a 503 that names the database when it cannot be reached, else a 500."""

import sys

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

RETRY_AFTER_SECONDS = "10"


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500, called while the exception is being handled. Touches neither database nor session."""
    if isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        return HttpResponse(
            render_to_string("503.html"),
            status=503,
            headers={"Retry-After": RETRY_AFTER_SECONDS, "Cache-Control": "no-store"},
        )
    return HttpResponse(render_to_string("500.html"), status=500, headers={"Cache-Control": "no-store"})
