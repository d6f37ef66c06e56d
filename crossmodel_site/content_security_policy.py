"""Tells browsers what a page may load: our own files and nothing else, no inline scripts or styles.

Django 5.2 has no Content-Security-Policy of its own. The admin is django-unfold's, whose pages need inline scripts,
inline styles and evaluated expressions (Alpine); only there they are allowed, still from this host alone.
"""

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

HEADER = "Content-Security-Policy"
ADMIN_PATH = "/admin/"
SIGN_IN_PATH = "/accounts/"
COMMON = "base-uri 'none'; frame-ancestors 'none'; object-src 'none'; connect-src 'self'"
PAGES = (
    f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    f"manifest-src 'self'; {COMMON}; form-action 'self'"
)
ADMIN = (
    f"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    f"img-src 'self' data:; font-src 'self'; {COMMON}; form-action 'self'"
)


class ContentSecurityPolicyMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        policy = ADMIN if request.path.startswith(ADMIN_PATH) else PAGES
        if request.path.startswith(SIGN_IN_PATH):
            policy = " ".join([policy, *settings.SIGN_IN_ORIGINS])
        # Browsers judge where a form's redirect ends, too: a page whose form leads to a payment page names its origin.
        response.headers.setdefault(HEADER, " ".join([policy, *getattr(response, "form_targets", ())]))
        return response
