"""Operators' pages that are not a table: the search, and the whole story of one request."""

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST, require_safe

from accounts.models import User
from billing.request_id import parse_request_id
from billing.usage.story import tell_story
from operations.finding import find
from pages.support_look import end_look


@require_safe
def find_anything(request: HttpRequest) -> HttpResponse:
    """Show what a text may mean; go there at once when it means one thing only."""
    assert isinstance(request.user, User)  # noqa: S101  admin_view() has seen to it.
    text = request.GET.get("q", "").strip()
    hits = find(request.user, text)
    if len(hits) == 1:
        return redirect(hits[0].url)
    context = {**admin.site.each_context(request), "title": "Find", "text": text, "hits": hits}
    return render(request, "operations/find.html", context)


@require_safe
def request_story(request: HttpRequest, request_id: str) -> HttpResponse:
    """Everything that is known of one request, in the order in which it happened."""
    assert isinstance(request.user, User)  # noqa: S101  admin_view() has seen to it.
    if not request.user.has_perm("billing.view_usagerecord"):
        raise PermissionDenied
    parsed = parse_request_id(request_id)
    story = tell_story(parsed) if parsed else None
    if story is None:
        raise Http404
    may_see_postings = request.user.has_perm("billing.view_ledgertransaction")
    context = {
        **admin.site.each_context(request),
        "title": f"Request {story.request_id.hex}",
        "story": story,
        "may_see_postings": may_see_postings,
        "may_refund": request.user.has_perm("billing.add_ledgertransaction"),
    }
    return render(request, "operations/request.html", context)


@require_POST
def stop_looking(request: HttpRequest) -> HttpResponse:
    """End a look at an organization's console, and lead back to its page in the admin."""
    organization = end_look(request)
    if organization is None:
        return redirect("admin:index")
    return redirect("admin:accounts_organization_change", organization.pk)
