"""Management keys: made here by who manages all keys, for programs that manage the organization over `/api/v1/`."""

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from accounts.access import Access, Permission, grantable_roles
from accounts.keys import MAX_LIVE_KEYS_PER_ORGANIZATION, NotAMemberError, TooManyKeysError, create_key
from accounts.models import Role
from console.entrance import console_page
from console.forms.keys import ManagementKeyForm
from console.one_time_forms import claim_form, is_used, make_form_id, release_form
from console.views.keys import show_new_secret
from pages.publishing import publish_or_tell


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_ALL_KEYS)
def key_management_new(request: HttpRequest, access: Access) -> HttpResponse:
    """Make a key that acts with a role, at most with one that its maker could give, and calls no model."""
    form = ManagementKeyForm(request.POST or None, roles=grantable_roles(access.member.role))
    if request.method == "POST" and is_used(request):
        messages.warning(request, "That form made its key already. The text of a key is shown only once.")
        return redirect("keys", slug=access.organization.slug)
    if request.method == "POST" and form.is_valid():
        if not claim_form(request):
            messages.warning(request, "That form made its key already. The text of a key is shown only once.")
            return redirect("keys", slug=access.organization.slug)
        try:
            key, text = create_key(
                access.organization,
                name=form.cleaned_data["name"],
                created_by=access.user,
                fields={"expires_at": form.cleaned_data["expires_at"]},
                is_management=True,
                role=Role(form.cleaned_data["role"]),
            )
        except TooManyKeysError:
            release_form(request)
            form.add_error(None, f"There are {MAX_LIVE_KEYS_PER_ORGANIZATION} live keys already. Revoke one first.")
        except NotAMemberError:
            raise PermissionDenied from None
        else:
            publish_or_tell(request, what_waits="The key is made.")
            return show_new_secret(request, key, text)
    context = {"form": form, "form_id": make_form_id()}
    status = 200 if request.method == "GET" else 422
    return render(request, "console/key_management_form.html", context, status=status)
