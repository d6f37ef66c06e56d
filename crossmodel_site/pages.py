"""Django's own handler, for pages and `/api/`, made fit for whatever strangers send."""

import gc
from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urljoin

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler, ASGIRequest
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import get_resolver

from accounts.request_credentials import client_address, customer_network
from billing.request_id import REQUEST_PREFIX, make_request_id
from crossmodel_site.page_bodies import (
    BodyRefusedError,
    ClientLeftError,
    Receive,
    Scope,
    Send,
    read_body,
    send_refusal,
)
from crossmodel_site.page_threads import PageThreads, TooBusyError

REQUEST_ID = "request-id"


def prepare_pages() -> None:
    """Load what pages are made of before the first one is asked for.

    It lives as long as the process, so it is not looked through for cycles again: that took 90 ms of CPU, in the middle
    of whichever page it came to.
    """
    get_resolver().resolve("/")
    gc.collect()
    gc.freeze()


class PageRequest(ASGIRequest):
    def build_absolute_uri(self, location: str | None = None) -> str:
        """Return an address as people outside know it, by CROSSMODEL_BASE_URL.

        Links in mail are made of it, and the Host of a request is whatever its sender likes.
        """
        return urljoin(settings.BASE_URL + self.path, self.get_full_path() if location is None else str(location))

    def _set_content_type_params(self, meta: dict[str, Any]) -> None:
        """Take a content-type that cannot be read for none; Django would answer a bare 500."""
        try:
            super()._set_content_type_params(meta)  # type: ignore[misc]  # django-stubs leaves it out
        except (ValueError, LookupError):
            self.content_type, self.content_params = "", {}


class PagesHandler(ASGIHandler):
    """Django's handler behind bounds: a body is whole and small before anything is done for it, and threads are few."""

    request_class = PageRequest

    def __init__(self) -> None:
        super().__init__()
        self._threads = PageThreads(settings.PAGE_THREADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # type: ignore[override]
        try:
            body = await read_body(scope, receive)
            await self._threads.run(self.handle, scope, body, send, client=client_of(scope))  # type: ignore[arg-type]
        except ClientLeftError:
            return
        except BodyRefusedError as error:
            await send_refusal(scope, send, status=error.status, code=error.code, text=str(error))
        except TooBusyError:
            text = "Too many pages are asked for at once. Please try again in a few seconds."
            await send_refusal(scope, send, status=503, code="pages_busy", text=text, retry_after=2)


def client_of(scope: Scope) -> str:
    """Return by whom threads of pages are counted: an address, or the network that one customer has of IPv6."""
    hops = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
    peer = scope.get("client")
    address = client_address({"HTTP_X_FORWARDED_FOR": ",".join(hops), "REMOTE_ADDR": peer[0] if peer else ""})
    return "" if address is None else customer_network(address)


class RequestIdMiddleware:
    """Names every response, as the gateway does its own; an error of the API has named itself by then.

    A 204 says nothing of a length (RFC 9110, 8.6), which Django's middleware gives it.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        response = self.get_response(request)
        if REQUEST_ID not in response.headers:
            response.headers[REQUEST_ID] = REQUEST_PREFIX + make_request_id().hex
        if response.status_code == HTTPStatus.NO_CONTENT:
            del response.headers["content-length"]
        return response
