"""The playground: a request from the browser to `/v1/messages`, with a key of the organization, billed as any request.

The page asks with one of the keys that its person may see, which they choose: that key's limits, budgets and
restrictions hold, and what is asked stands on the bill under it. The text of a key is kept nowhere, so the page is lent
a second secret of it, for some minutes, by a POST of its own; it stays in the memory of the page.
"""

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from accounts.access import Access, Permission
from accounts.key_secrets import lend_secret
from accounts.keys import KeyAlreadyRevokedError
from accounts.models import ApiKey
from billing.catalog.price_list import ListedModel, list_prices
from console.entrance import console_page
from pages.publishing import publish_in_silence

MAX_KEYS_SHOWN = 200
MAX_ID_DIGITS = 18
DEFAULT_MAX_TOKENS = 1024


@require_safe
@console_page(Permission.MANAGE_KEYS)
def playground(request: HttpRequest, access: Access) -> HttpResponse:
    listed = list_prices(now=datetime.now(UTC), organization_id=access.organization.pk)
    context = {
        "keys": _keys(access)[:MAX_KEYS_SHOWN],
        "listed": [_choice(item) for item in listed if item.is_available],
        "default_max_tokens": DEFAULT_MAX_TOKENS,
        "base_url": settings.BASE_URL,
    }
    return render(request, "console/playground.html", context)


@require_POST
@console_page(Permission.MANAGE_KEYS)
def playground_secret(request: HttpRequest, access: Access) -> HttpResponse:
    """Lend the page a second secret of the key that it names."""
    text = request.POST.get("key", "")
    key = None
    if text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS:
        key = _keys(access).filter(pk=int(text)).first()
    if key is None:
        return JsonResponse({"message": "This key cannot be used. Choose another one."}, status=404)
    try:
        secret, ends_at = lend_secret(key, user=access.user)
    except KeyAlreadyRevokedError:
        return JsonResponse({"message": "This key was revoked. Choose another one."}, status=409)
    publish_in_silence()
    seconds = int((ends_at - timezone.now()).total_seconds())
    return JsonResponse({"secret": secret, "seconds": seconds}, headers={"Cache-Control": "no-store"})


def _keys(access: Access) -> QuerySet[ApiKey]:
    """Return the keys that the person may ask with: live ones that call models, their own first."""
    keys = access.organization.keys.filter(is_management=False, revoked_at=None, disabled_at=None)
    keys = keys.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()))
    if not access.may(Permission.MANAGE_ALL_KEYS):
        keys = keys.filter(owner=access.user)
    return keys.annotate(is_own=Q(owner=access.user)).order_by("-is_own", "-pk")


def _choice(item: ListedModel) -> dict[str, Any]:
    return {
        "id": item.model.id,
        "max_output_tokens": item.model.max_output_tokens,
        "is_sandbox": all(route.is_sandbox for route in item.model.routes),
    }
