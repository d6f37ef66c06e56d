"""The one door through which every page of an organization is entered."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from accounts.access import Access, Permission, find_access
from accounts.models import User
from accounts.organizations import find_organization
from console.kept_forms import keep_form
from pages.support_look import find_look

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
LAST_ORGANIZATION = "organization"  # Session key: the slug that `/console/` leads to.

ConsoleView = Callable[Concatenate[HttpRequest, Access, ...], HttpResponseBase]


def console_page(permission: Permission) -> Callable[[ConsoleView], Callable[..., HttpResponseBase]]:
    """Let members with `permission` in; strangers get a 404, which tells nothing, other members a 403.

    The view is called with an Access in place of the URL's `slug`: it never sees an organization of strangers.
    """

    def decorate(view: ConsoleView) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def enter(request: HttpRequest, slug: str, **arguments: Any) -> HttpResponseBase:
            if not isinstance(request.user, User):
                is_kept = request.method == "POST" and keep_form(request)
                back = reverse("kept_form", kwargs={"slug": slug}) if is_kept else request.get_full_path()
                return redirect_to_login(back)
            access = find_access(request.user, slug) or find_look(request, slug)
            if access is None:
                return _lead_on(request, slug, arguments)
            if access.looks_until is not None and request.method not in SAFE_METHODS:
                raise PermissionDenied
            if not access.may(permission):
                raise PermissionDenied
            request.access = access  # type: ignore[attr-defined]  # read by the layout's navigation
            if access.looks_until is None and request.session.get(LAST_ORGANIZATION) != slug:
                request.session[LAST_ORGANIZATION] = slug
            response = view(request, access, **arguments)
            # A page shows one tenant's money: no cache between here and the browser may keep it.
            if not response.has_header("Cache-Control"):
                response["Cache-Control"] = "private, no-store"
            return response

        enter.permission = permission  # type: ignore[attr-defined]  # docs/roles.md is compared with it
        return enter

    return decorate


def _lead_on(request: HttpRequest, slug: str, arguments: dict[str, Any]) -> HttpResponseBase:
    """Lead from a slug that the organization had before to the one that it has now. Raises Http404 for strangers."""
    assert isinstance(request.user, User)  # noqa: S101  enter() has seen to it.
    organization = find_organization(slug)
    if organization is None or organization.slug == slug or request.method not in SAFE_METHODS:
        raise Http404
    if find_access(request.user, organization.slug) is None or request.resolver_match is None:
        raise Http404
    address = reverse(request.resolver_match.url_name or "", kwargs={**arguments, "slug": organization.slug})
    query = request.META.get("QUERY_STRING", "")
    return redirect(f"{address}?{query}" if query else address)
