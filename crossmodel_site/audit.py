"""Says of every page, API call and task on whose behalf it changes things: see accounts/audit.py."""

from collections.abc import Callable
from typing import Any

from celery import Task
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.utils.functional import SimpleLazyObject

from accounts.audit import AuditContext, audited
from accounts.request_credentials import client_address


class AuditMiddleware:
    """Behind authentication, around everything that changes rows."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponseBase]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        address = client_address(request.META)
        context = AuditContext(
            source=f"{request.method} {request.path}",
            address=str(address or ""),
            find_actor=lambda: _signed_in(request),
        )
        with audited(context):
            return self.get_response(request)


class AuditedTask(Task):  # type: ignore[misc]  # Celery ships no types.
    def __call__(self, *args: Any, **options: Any) -> Any:
        with audited(AuditContext(source=f"job {self.name}")):
            return super().__call__(*args, **options)


def _signed_in(request: HttpRequest) -> int | None:
    """Return who is signed in, if the page knows by now; asking here would be a query within a query."""
    user = vars(request).get("user")
    if isinstance(user, SimpleLazyObject) and not hasattr(request, "_cached_user"):
        return None
    pk: int | None = getattr(user, "pk", None)
    return pk
