"""Operators' pages that are not a table: the search, and the whole story of one request."""

import uuid

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from unfold.widgets import UnfoldAdminTextareaWidget

from accounts.models import User
from accounts.staff_roles import StaffRole, operators_with
from billing.models import UsageRecord
from billing.request_id import parse_request_id
from billing.usage.story import RequestStory, tell_story
from operations.admin.base import operator_form
from operations.asking import operator_of
from operations.finding import find
from operations.support import mail_to_support
from pages.forms import Form
from pages.support_look import end_look


class SupportForm(Form):
    note = forms.CharField(
        max_length=1000, widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}), help_text="What they should look at."
    )
    # Sent twice, the same form is one mail.
    form_id = forms.UUIDField(widget=forms.HiddenInput)


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
    story = _story_or_404(request, request_id)
    operator = operator_of(request)
    context = {
        **admin.site.each_context(request),
        "title": f"Request {story.request_id.hex}",
        "story": story,
        "may_see_postings": operator.has_perm("billing.view_ledgertransaction"),
        "may_refund": operator.has_perm("billing.add_ledgertransaction"),
    }
    return render(request, "operations/request.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def send_to_support(request: HttpRequest, request_id: str) -> HttpResponse:
    """Mail the story of a request to everybody whose role is support, with a note; again with another note."""
    story = _story_or_404(request, request_id)
    back_url = reverse("operations_request", args=[story.request_id.hex])
    form = SupportForm(request.POST or None, initial={"form_id": uuid.uuid4()})
    people = operators_with(StaffRole.SUPPORT)
    names = ", ".join(person.email for person in people)
    if request.method == "POST" and form.is_valid():
        if people:
            mail_to_support(
                people,
                story=story,
                note=form.cleaned_data["note"],
                sender=operator_of(request),
                form_id=form.cleaned_data["form_id"],
            )
            messages.success(request, f"It is on its way to {names}.")
            return redirect(back_url)
        form.add_error(None, "Nobody has the staff role support yet. A superuser gives it on the page of a person.")
    return operator_form(
        admin.site.get_model_admin(UsageRecord),
        request,
        row=None,
        title=f"Send request {story.request_id.hex} to support",
        text=f"They get a mail with how it ended and a link to its story: {names or 'nobody has the role yet'}.",
        form=form,
        submit="Send to support",
        back_url=back_url,
    )


def _story_or_404(request: HttpRequest, request_id: str) -> RequestStory:
    if not request.user.has_perm("billing.view_usagerecord"):
        raise PermissionDenied
    parsed = parse_request_id(request_id)
    story = tell_story(parsed) if parsed else None
    if story is None:
        raise Http404
    return story


@require_POST
def stop_looking(request: HttpRequest) -> HttpResponse:
    """End a look at an organization's console, and lead back to its page in the admin."""
    organization = end_look(request)
    if organization is None:
        return redirect("admin:index")
    return redirect("admin:accounts_organization_change", organization.pk)
