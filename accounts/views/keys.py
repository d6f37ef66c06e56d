"""API keys: list, create (the text is shown once), change limits, revoke."""

import secrets

from django.conf import settings
from django.contrib import messages
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.access import Access, Permission, console_page
from accounts.forms import KeyForm, model_ids_by_name
from accounts.keys import (
    MAX_LIVE_KEYS_PER_ORGANIZATION,
    KeyAlreadyRevokedError,
    TooManyKeysError,
    change_key,
    create_key,
    revoke_key,
)
from accounts.models import ApiKey
from accounts.views.publishing import publish_or_tell
from billing.usage_report import key_activity

MAX_KEYS_SHOWN = 1000
# A form may make one key: sent twice (a reload, a double click), it says so instead of making another.
USED_FORMS = "key_forms_used"
MAX_USED_FORMS = 20


@require_safe
@console_page(Permission.MANAGE_KEYS)
def keys(request: HttpRequest, access: Access) -> HttpResponse:
    found = _visible_keys(access).select_related("created_by", "revoked_by")[:MAX_KEYS_SHOWN]
    activity = key_activity(access.organization)
    rows = [(key, activity.get(key.pk)) for key in found]
    context = {
        "live": [row for row in rows if not row[0].is_revoked],
        "revoked": [row for row in rows if row[0].is_revoked],
    }
    return render(request, "accounts/keys.html", context)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_KEYS)
def key_new(request: HttpRequest, access: Access) -> HttpResponse:
    """Make a key and show its text on the answer to the POST: it is kept nowhere, so there is no second look."""
    form = KeyForm(request.POST or None, model_ids=model_ids_by_name())
    if request.method == "POST":
        form_id = request.POST.get("form_id", "")
        used = request.session.get(USED_FORMS, [])
        if form_id in used:
            messages.warning(request, "That form made its key already. The text of a key is shown only once.")
            return redirect("keys", slug=access.organization.slug)
        if form.is_valid():
            try:
                key, text = create_key(
                    access.organization,
                    name=form.cleaned_data["name"],
                    created_by=access.user,
                    fields=form.limits_and_restrictions,
                )
            except TooManyKeysError:
                form.add_error(None, f"There are {MAX_LIVE_KEYS_PER_ORGANIZATION} live keys already. Revoke one first.")
            else:
                request.session[USED_FORMS] = [*used, form_id][-MAX_USED_FORMS:]
                publish_or_tell(request, what_waits="The key is made.")
                context = {"key": key, "text": text, "base_url": settings.BASE_URL}
                return render(request, "accounts/key_created.html", context)
    context = {"form": form, "form_id": secrets.token_urlsafe(16)}
    return render(request, "accounts/key_form.html", context, status=200 if request.method == "GET" else 422)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_KEYS)
def key_edit(request: HttpRequest, access: Access, key_id: int) -> HttpResponse:
    key = _live_key(access, key_id)
    form = KeyForm(request.POST or None, instance=key, model_ids=model_ids_by_name())
    if request.method == "POST" and form.is_valid():
        change_key(key, fields={"name": form.cleaned_data["name"], **form.limits_and_restrictions})
        publish_or_tell(request, done=f"Limits of “{key.name}” saved.")
        return redirect("keys", slug=access.organization.slug)
    return render(
        request, "accounts/key_form.html", {"form": form, "key": key}, status=422 if request.method == "POST" else 200
    )


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_KEYS)
def key_revoke(request: HttpRequest, access: Access, key_id: int) -> HttpResponse:
    """Ask, then revoke. Success is told only once Redis has it: from then on no gateway admits the key."""
    key = _live_key(access, key_id)
    if request.method == "POST":
        try:
            revoke_key(key, revoked_by=access.user)
        except KeyAlreadyRevokedError:
            messages.info(request, f"“{key.name}” was revoked before.")
        else:
            publish_or_tell(
                request,
                done=f"“{key.name}” is revoked: every gateway refuses it.",
                what_waits=f"“{key.name}” is revoked.",
            )
        return redirect("keys", slug=access.organization.slug)
    return render(request, "accounts/key_revoke.html", {"key": key})


def _visible_keys(access: Access) -> QuerySet[ApiKey]:
    """Return the keys that the member may see and change: all of them, or those that they made themselves."""
    keys = access.organization.keys.all()
    return keys if access.may(Permission.MANAGE_ALL_KEYS) else keys.filter(created_by=access.user)


def _live_key(access: Access, key_id: int) -> ApiKey:
    key = _visible_keys(access).filter(pk=key_id, revoked_at=None).first()
    if key is None:
        raise Http404
    return key
