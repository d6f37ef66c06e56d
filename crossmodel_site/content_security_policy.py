"""Tells browsers what a page may load: our own files and nothing else, no inline scripts or styles.

Django 5.2 has no Content-Security-Policy of its own. The admin is django-unfold's, whose pages need inline scripts,
inline styles and evaluated expressions (Alpine); only there they are allowed, still from this host alone.
"""

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

HEADER = "Content-Security-Policy"
ADMIN_PATH = "/admin/"
COMMON = "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'; connect-src 'self'"
PAGES = (
    f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    f"manifest-src 'self'; {COMMON}"
)
ADMIN = (
    f"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    f"img-src 'self' data:; font-src 'self'; {COMMON}"
)


class ContentSecurityPolicyMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        response.headers.setdefault(HEADER, ADMIN if request.path.startswith(ADMIN_PATH) else PAGES)
        return response
