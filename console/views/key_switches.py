"""What is done to a key that stays: switched off and on, and given another secret."""

from datetime import timedelta

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.http import require_http_methods, require_POST

from accounts.access import Access, Permission
from accounts.key_secrets import end_former_secrets, rotate_secret
from accounts.keys import DisabledByAnotherError, disable_key, enable_key
from console.entrance import console_page
from console.forms.keys import RotationForm
from console.one_time_forms import claim_form, is_used, make_form_id
from console.views.keys import ALREADY_MADE, live_key, show_new_secret
from pages.publishing import publish_or_tell


@require_POST
@console_page(Permission.MANAGE_KEYS)
def key_switch(request: HttpRequest, access: Access, key_id: int) -> HttpResponse:
    """Disable the key, or enable it again. What somebody else disabled is enabled by who manages all keys."""
    key = live_key(access, key_id)
    if request.POST.get("to") == "on":
        try:
            enabled = enable_key(key, enabled_by=access.user, manages_all=access.may(Permission.MANAGE_ALL_KEYS))
        except DisabledByAnotherError:
            raise PermissionDenied from None
        if enabled:
            publish_or_tell(request, done=f"“{key.name}” works again.", what_waits=f"“{key.name}” is enabled.")
    elif disable_key(key, disabled_by=access.user):
        publish_or_tell(
            request,
            done=f"“{key.name}” is disabled: every gateway refuses it until you enable it.",
            what_waits=f"“{key.name}” is disabled.",
        )
    return redirect("keys", slug=access.organization.slug)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_KEYS)
def key_rotate(request: HttpRequest, access: Access, key_id: int) -> HttpResponse:
    """Give the key another secret, shown once; the one before goes on working as long as was chosen."""
    key = live_key(access, key_id)
    if not access.may_rotate(key):
        raise PermissionDenied
    form = RotationForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        if is_used(request) or not claim_form(request):
            messages.warning(request, ALREADY_MADE)
            return redirect("keys", slug=access.organization.slug)
        overlap = timedelta(hours=int(form.cleaned_data["overlap"]))
        key, text = rotate_secret(key, overlap=overlap)
        publish_or_tell(request, what_waits="The secret is made.")
        until = timezone.now() + overlap
        return show_new_secret(request, key, text, is_rotated=True, overlap=overlap, until=until)
    context = {"key": key, "form": form, "form_id": make_form_id()}
    return render(request, "console/key_rotate.html", context, status=422 if request.method == "POST" else 200)


@require_POST
@console_page(Permission.MANAGE_KEYS)
def key_end_overlap(request: HttpRequest, access: Access, key_id: int) -> HttpResponse:
    """End the secrets from before a rotation now."""
    key = live_key(access, key_id)
    if end_former_secrets(key):
        publish_or_tell(request, done=f"Only the newest secret of “{key.name}” works now.")
    return redirect("key_edit", slug=access.organization.slug, key_id=key.pk)
