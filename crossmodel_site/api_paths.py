"""Addresses of the API that are none: which they are, and what was meant by them."""

import re
from collections.abc import Iterator, Mapping

from django.urls import Resolver404, resolve
from django.urls.resolvers import RegexPattern, URLResolver

from api.base import KeyedView

API = re.compile(r"/+(api|v1)(/|$)", re.IGNORECASE)
VERSIONS = re.compile(r"^(/(api/v1|api|v1)(?=/|$))+", re.IGNORECASE)
ABOVE = re.compile(r"^.+(?=/v1/)", re.IGNORECASE)  # What a base URL has that ends too late.
JSON = "application/json"
ROOTS = ("/api/v1", "/v1")
MAX_PATH_CHARS_SHOWN = 200
MAX_PATH_CHARS_READ = 1_000
gateway = URLResolver(RegexPattern(r"^/"), "gateway.urls")
# The gateway answers it, though it stands among ours: see crossmodel_site.asgi.
ESTIMATE = "/api/v1/estimate"


def is_api_path(path: str) -> bool:
    """Say whether a program asks, which is told in JSON, also where the path is only nearly right."""
    return API.match(path) is not None


def is_program(headers: Mapping[str, str]) -> bool:
    """Say the same of a path that is nothing like ours, as of a client whose base URL is that of another service."""
    if "text/html" in headers.get("accept", ""):
        return False
    return "x-api-key" in headers or "authorization" in headers or headers.get("content-type", "").startswith(JSON)


def describe_missing(path: str) -> str:
    """Return what is told of a path of the API that is none; where it is plain what was meant, that too."""
    said = path if len(path) <= MAX_PATH_CHARS_SHOWN else path[:MAX_PATH_CHARS_SHOWN] + "..."
    meant = next((each for each in _candidates(path) if _exists(each)), None)
    if meant is None:
        return f"There is no {said} here. /reference/api/ names every address."
    return f"There is no {said} here. Did you mean {meant}?"


def _candidates(path: str) -> Iterator[str]:
    """Yield the path without doubled and trailing slashes and versions; as it is written, and in small letters."""
    if len(path) > MAX_PATH_CHARS_READ:
        return
    plain = VERSIONS.sub("", ABOVE.sub("", re.sub(r"/+", "/", path)).rstrip("/"))
    for rest in dict.fromkeys((plain, plain.lower())):
        if rest:
            yield from (root + rest for root in ROOTS)


def _exists(path: str) -> bool:
    if path == ESTIMATE:
        return True
    try:
        view = resolve(path).func
    except Resolver404:
        pass
    else:
        return issubclass(getattr(view, "view_class", type(None)), KeyedView)
    try:
        gateway.resolve(path)
    except Resolver404:
        return False
    return True
