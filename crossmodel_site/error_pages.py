"""What is shown when a page or the JSON API fails: a 503 that names the database when it is away, a 404 or a 500."""

import sys
from collections.abc import Callable

from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed, JsonResponse
from django.http.response import HttpResponseBase
from django.shortcuts import render
from django.template.loader import render_to_string

from api.errors import envelope
from crossmodel_site.api_paths import describe_missing, is_api_path, is_program

RETRY_AFTER_SECONDS = "10"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler400, for a host that is not ours among others."""
    if is_api_path(request.path):
        return _api_error(400, "bad_request", "The request cannot be read, or its host is not one of ours.")
    return HttpResponse(render_to_string("400.html"), status=400)


def not_found(request: HttpRequest, exception: Exception) -> HttpResponse:
    """Django's handler404."""
    if is_api_path(request.path) or is_program(request.headers):
        return _api_error(404, "not_found", describe_missing(request.path))
    return render(request, "404.html", status=404)


class MethodPageMiddleware:
    """Gives whoever opens what can only be sent to a page that says so: Django's 405 is empty, which looks broken."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if request.method == "GET" and isinstance(response, HttpResponseNotAllowed) and not is_api_path(request.path):
            response.content = render_to_string("405.html")
        return response


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500, called while the exception is being handled. Touches neither database nor session."""
    is_api = is_api_path(request.path)
    if isinstance(sys.exc_info()[1], OperationalError | InterfaceError):
        response = (
            _api_error(503, "database_unavailable", "The database cannot be reached. Try again shortly.")
            if is_api
            else HttpResponse(render_to_string("503.html"), status=503)
        )
        response.headers.setdefault("Retry-After", RETRY_AFTER_SECONDS)
    elif is_api:
        response = _api_error(500, "internal_error", "An internal error. It is logged under this request id.")
    else:
        response = HttpResponse(render_to_string("500.html"), status=500)
    response.headers["Cache-Control"] = "no-store"
    return response


def _api_error(status: int, code: str, message: str) -> HttpResponse:
    body, headers = envelope(status, code, message)
    return JsonResponse(body, status=status, headers=headers)
