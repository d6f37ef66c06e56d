"""API keys: list, create (the text is shown once), change, revoke."""

from django.conf import settings
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods, require_safe

from accounts.access import Access, Permission
from accounts.key_search import KeyState, search_keys
from accounts.keys import (
    MAX_LIVE_KEYS_PER_ORGANIZATION,
    KeyAlreadyRevokedError,
    NotAMemberError,
    TooManyKeysError,
    change_key,
    create_key,
    revoke_key,
)
from accounts.models import ApiKey, User
from billing.catalog.names import model_ids_by_name
from billing.usage.key_activity import key_activity
from console.entrance import GoneError, console_page
from console.forms.keys import KeyForm, KeySearchForm
from console.one_time_forms import claim_form, is_used, make_form_id, release_form
from pages.publishing import publish_or_tell
from pages.templatetags.amounts import column_decimals

KEYS_PER_PAGE = 50
EXAMPLE_MODEL = "anthropic/claude-sonnet-4.6"
TOO_MANY = f"There are {MAX_LIVE_KEYS_PER_ORGANIZATION} live keys already. Revoke one first."
ALREADY_MADE = "This form has made its key already. The text of a key is shown only once."


@require_safe
@console_page(Permission.MANAGE_KEYS)
def keys(request: HttpRequest, access: Access) -> HttpResponse:
    form = KeySearchForm(request.GET)
    wanted = form.cleaned_data if form.is_valid() else {}
    state = KeyState(wanted.get("state") or KeyState.LIVE)
    found = search_keys(access.keys(), text=wanted.get("q", ""), state=state)
    page = Paginator(found.select_related("owner", "created_by", "revoked_by"), KEYS_PER_PAGE).get_page(
        request.GET.get("page")
    )
    activity = key_activity(access.organization, [key.pk for key in page])
    context = {
        "form": form,
        "rows": [(key, activity[key.pk], access.may_rotate(key)) for key in page],
        "page": page,
        "decimals": column_decimals(activity[key.pk].month_cost_nanos for key in page),
        "is_filtered": form.is_filtered,
        "has_keys": bool(page) or access.keys().exists(),
    }
    return render(request, "console/keys.html", context)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_KEYS)
def key_new(request: HttpRequest, access: Access) -> HttpResponse:
    """Make a key and show its text on the answer to the POST: it is kept nowhere, so there is no second look."""
    form = KeyForm(request.POST or None, model_ids=model_ids_by_name(), owners=_owners(access))
    form.initial.setdefault("owner", access.user.pk)
    if request.method == "POST":
        if is_used(request):
            messages.warning(request, ALREADY_MADE)
            return redirect("keys", slug=access.organization.slug)
        if form.is_valid():
            made = _create(request, access, form)
            if made is not None:
                return made
    context = {"form": form, "form_id": make_form_id()}
    return render(request, "console/key_form.html", context, status=200 if request.method == "GET" else 422)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_KEYS)
def key_edit(request: HttpRequest, access: Access, key_id: int) -> HttpResponse:
    key = live_key(access, key_id)
    owners = _owners(access)
    form = KeyForm(request.POST or None, instance=key, model_ids=model_ids_by_name(), owners=owners)
    form.initial.setdefault("owner", key.owner_id)
    if request.method == "POST" and form.is_valid():
        fields = {"name": form.cleaned_data["name"], **form.limits_and_restrictions}
        if "owner" in request.POST and owners is not None:
            fields["owner"] = form.chosen_owner
        change_key(key, fields=fields)
        publish_or_tell(request, done=f"“{form.cleaned_data['name']}” is saved.")
        return redirect("keys", slug=access.organization.slug)
    former = key.temporary_secrets.filter(user=None).order_by("-ends_at").first()
    context = {"form": form, "key": key, "former": former if former and not former.is_over else None}
    return render(request, "console/key_form.html", context, status=422 if request.method == "POST" else 200)


@require_http_methods(["GET", "POST"])
@console_page(Permission.MANAGE_KEYS)
def key_revoke(request: HttpRequest, access: Access, key_id: int) -> HttpResponse:
    """Ask, then revoke. Success is told only once Redis has it: from then on no gateway admits the key."""
    key = live_key(access, key_id)
    if request.method == "POST":
        try:
            revoke_key(key, revoked_by=access.user)
        except KeyAlreadyRevokedError:
            messages.info(request, f"“{key.name}” is revoked already.")
        else:
            publish_or_tell(
                request,
                done=f"“{key.name}” is revoked: every gateway refuses it.",
                what_waits=f"“{key.name}” is revoked.",
            )
        return redirect("keys", slug=access.organization.slug)
    return render(request, "console/key_revoke.html", {"key": key})


def show_new_secret(request: HttpRequest, key: ApiKey, text: str, **context: object) -> HttpResponse:
    """Show the text of a key, the only time that anybody can."""
    model_id = key.allowed_models[0] if key.allowed_models else EXAMPLE_MODEL
    shown = {"key": key, "text": text, "base_url": settings.BASE_URL, "model_id": model_id, **context}
    return render(request, "console/key_created.html", shown)


def live_key(access: Access, key_id: int) -> ApiKey:
    """Return a key that the person may change. Raises Http404, also for what is another's, GoneError when revoked."""
    key = access.keys().filter(pk=key_id).first()
    if key is None:
        raise Http404
    if key.is_revoked:
        raise GoneError(f"“{key.name}” is revoked already. Nothing was changed.", leads_to="keys")
    return key


def _create(request: HttpRequest, access: Access, form: KeyForm) -> HttpResponse | None:
    """Make the key once, however often the form is sent. None, with an error in the form, when there is no room."""
    if not claim_form(request):
        messages.warning(request, ALREADY_MADE)
        return redirect("keys", slug=access.organization.slug)
    try:
        key, text = create_key(
            access.organization,
            name=form.cleaned_data["name"],
            created_by=access.user,
            owner=form.chosen_owner,
            fields=form.limits_and_restrictions,
        )
    except TooManyKeysError:
        release_form(request)
        form.add_error(None, TOO_MANY)
        return None
    except NotAMemberError:
        release_form(request)
        raise PermissionDenied from None
    publish_or_tell(request, what_waits="The key is made.")
    return show_new_secret(request, key, text)


def _owners(access: Access) -> dict[int, User] | None:
    """Return whose key it may be, or None where one makes keys for oneself only."""
    if not access.may(Permission.MANAGE_ALL_KEYS):
        return None
    return {member.user_id: member.user for member in access.organization.members.select_related("user")}
