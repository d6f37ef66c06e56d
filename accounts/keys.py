"""Makes, changes and revokes API keys."""

from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from accounts.changes import record_key_change
from accounts.key_format import make_key
from accounts.models import ApiKey, Organization, User

MAX_LIVE_KEYS_PER_ORGANIZATION = 500


class TooManyKeysError(Exception):
    """The organization has MAX_LIVE_KEYS_PER_ORGANIZATION live keys already."""


class KeyAlreadyRevokedError(Exception):
    """The key was revoked before; who and when stay as they were."""


def create_key(
    organization: Organization, *, name: str, created_by: User | None, fields: Mapping[str, Any] | None = None
) -> tuple[ApiKey, str]:
    """Return the new key and its text. The text is stored nowhere: show it now or never.

    `fields` are limits and restrictions of ApiKey. Raises TooManyKeysError.
    """
    new = make_key()
    with transaction.atomic():
        Organization.objects.select_for_update().get(pk=organization.pk)
        if organization.keys.filter(revoked_at=None).count() >= MAX_LIVE_KEYS_PER_ORGANIZATION:
            raise TooManyKeysError
        key = ApiKey.objects.create(
            organization=organization,
            name=name,
            prefix=new.prefix,
            last_four=new.last_four,
            secret_sha256=new.sha256,
            created_by=created_by,
            **(fields or {}),
        )
        record_key_change(key)
    return key, new.text


def change_key(key: ApiKey, *, fields: Mapping[str, Any]) -> ApiKey:
    """Set limits and restrictions; every gateway process sees them at its next admission."""
    with transaction.atomic():
        locked = ApiKey.objects.select_for_update().get(pk=key.pk)
        for name, value in fields.items():
            setattr(locked, name, value)
        locked.config_version += 1
        locked.full_clean(exclude=["secret_sha256"])
        locked.save()
        record_key_change(locked)
    return locked


def revoke_key(key: ApiKey, *, revoked_by: User | None) -> ApiKey:
    """Mark the key revoked. It is dead on every gateway once the change is published: see billing.admission.

    Raises KeyAlreadyRevokedError.
    """
    with transaction.atomic():
        changed = ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(
            revoked_at=timezone.now(), revoked_by=revoked_by, config_version=F("config_version") + 1
        )
        if not changed:
            raise KeyAlreadyRevokedError
        record_key_change(key)
    key.refresh_from_db()
    return key
