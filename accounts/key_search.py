"""Finds keys among those that a person may see: by name, owner, beginning or end, and by what they are now."""

from enum import StrEnum

from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import ApiKey

MAX_TEXT_CHARS = 100
PREFIX_CHARS = 11  # What is kept of a key's beginning: all that a whole key, pasted here, is found by.


class KeyState(StrEnum):
    LIVE = "live"  # Whatever is not revoked.
    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REVOKED = "revoked"


def search_keys(keys: QuerySet[ApiKey], *, text: str = "", state: KeyState = KeyState.LIVE) -> QuerySet[ApiKey]:
    """Return those of `keys` that fit, newest first."""
    text = text.replace("\x00", "").strip()[:MAX_TEXT_CHARS]
    if text:
        keys = keys.filter(
            Q(name__icontains=text)
            | Q(owner__email__icontains=text)
            | Q(prefix__startswith=text[:PREFIX_CHARS] if text.startswith("cm-") else text)
            | Q(last_four=text)
        )
    return keys.filter(_fits(state)).order_by("-created_at", "-pk")


def _fits(state: KeyState) -> Q:
    live, expired = Q(revoked_at=None), Q(expires_at__lte=timezone.now())
    return {
        KeyState.LIVE: live,
        KeyState.ACTIVE: live & Q(disabled_at=None) & ~expired,
        KeyState.DISABLED: live & Q(disabled_at__isnull=False),
        KeyState.EXPIRED: live & expired,
        KeyState.REVOKED: ~live,
    }[state]
