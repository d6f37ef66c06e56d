"""The one door through which every page of an organization is entered."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate
from urllib.parse import urlsplit

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect
from django.urls import reverse

from accounts.access import Access, Permission, find_access
from accounts.models import User
from accounts.organizations import find_organization
from console.kept_forms import forget_kept_form, keep_form
from pages.support_look import find_look

SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}
SIGNED_OUT = 401
LAST_ORGANIZATION = "organization"  # Session key: the slug that `/console/` leads to.

ConsoleView = Callable[Concatenate[HttpRequest, Access, ...], HttpResponseBase]


class GoneError(Exception):
    """What the page is about ended meanwhile, maybe in another tab: the text says what, and a list is led to."""

    def __init__(self, text: str, *, leads_to: str) -> None:
        super().__init__(text)
        self.leads_to = leads_to


def console_page(permission: Permission) -> Callable[[ConsoleView], Callable[..., HttpResponseBase]]:
    """Let members with `permission` in; strangers get a 404, which tells nothing, other members a 403.

    The view is called with an Access in place of the URL's `slug`: it never sees an organization of strangers.
    """

    def decorate(view: ConsoleView) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def enter(request: HttpRequest, slug: str, **arguments: Any) -> HttpResponseBase:
            if not isinstance(request.user, User):
                if request.headers.get("HX-Request"):
                    # A part of a page: in its place the page for signing in would stand within the list.
                    return HttpResponse(status=SIGNED_OUT)
                return redirect_to_login(_way_back(request, slug))
            access = find_access(request.user, slug) or find_look(request, slug)
            if access is None:
                return _lead_on(request, slug, arguments)
            if access.looks_until is not None and request.method not in SAFE_METHODS:
                raise PermissionDenied
            if not access.may(permission):
                raise PermissionDenied
            if request.method not in SAFE_METHODS:
                forget_kept_form(request)
            request.access = access  # type: ignore[attr-defined]  # read by the layout's navigation
            if access.looks_until is None and request.session.get(LAST_ORGANIZATION) != slug:
                request.session[LAST_ORGANIZATION] = slug
            try:
                response = view(request, access, **arguments)
            except GoneError as gone:
                messages.info(request, str(gone))
                response = redirect(gone.leads_to, slug=slug)
            # A page shows one tenant's money: no cache between here and the browser may keep it.
            if not response.has_header("Cache-Control"):
                response["Cache-Control"] = "private, no-store"
            return response

        enter.permission = permission  # type: ignore[attr-defined]  # docs/roles.md is compared with it
        return enter

    return decorate


def _way_back(request: HttpRequest, slug: str) -> str:
    """Return where to go after signing in: to what was asked for, to what was typed, or to where a button was."""
    if request.method in SAFE_METHODS:
        return request.get_full_path()
    if keep_form(request):
        return reverse("kept_form", kwargs={"slug": slug})
    overview = reverse("overview", kwargs={"slug": slug})
    page = urlsplit(request.headers.get("Referer", ""))
    is_ours = page.netloc == request.get_host() and page.path.startswith(overview)
    return page._replace(scheme="", netloc="", fragment="").geturl() if is_ours else overview


def _lead_on(request: HttpRequest, slug: str, arguments: dict[str, Any]) -> HttpResponseBase:
    """Lead from a slug that the organization had before to the one that it has now. Raises Http404 for strangers.

    What was sent from a page that was open at the time is sent again by the browser, so that nothing typed is lost.
    """
    assert isinstance(request.user, User)  # noqa: S101  enter() has seen to it.
    organization = find_organization(slug)
    if organization is None or organization.slug == slug:
        raise Http404
    if find_access(request.user, organization.slug) is None or request.resolver_match is None:
        raise Http404
    address = reverse(request.resolver_match.url_name or "", kwargs={**arguments, "slug": organization.slug})
    query = request.META.get("QUERY_STRING", "")
    return redirect(f"{address}?{query}" if query else address, preserve_request=request.method not in SAFE_METHODS)
