"""Makes, changes, disables and revokes API keys. Their secrets are made and found in accounts/key_secrets.py."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone

from accounts.access import roles_for_keys
from accounts.key_format import make_key
from accounts.models import ApiKey, Organization, Role, User
from accounts.outbox import record_key_change

MAX_LIVE_KEYS_PER_ORGANIZATION = 1000


class TooManyKeysError(Exception):
    """The organization has MAX_LIVE_KEYS_PER_ORGANIZATION live keys already."""


class KeyAlreadyRevokedError(Exception):
    """The key was revoked before; who and when stay as they were."""


class NotAMemberError(Exception):
    """Who makes the key, or whose it shall be, is no member any more, or may not make one that acts with this role."""


class DisabledByAnotherError(Exception):
    """Somebody else disabled the key: who manages only their own keys does not enable it."""


def create_key(
    organization: Organization,
    *,
    name: str,
    created_by: User | None,
    owner: User | None = None,
    fields: Mapping[str, Any] | None = None,
    is_management: bool = False,
    role: Role | None = None,
) -> tuple[ApiKey, str]:
    """Return the new key and its text. The text is stored nowhere: show it now or never.

    It is its maker's unless an `owner` is named, who is a member. `fields` are limits and restrictions of ApiKey.
    A management key acts with `role` and calls no model, all its life.
    Raises TooManyKeysError, and NotAMemberError for who was removed while they asked.
    """
    new = make_key()
    with transaction.atomic():
        Organization.objects.select_for_update().get(pk=organization.pk)
        _require_members(organization, created_by, owner, role)
        if organization.keys.filter(revoked_at=None).count() >= MAX_LIVE_KEYS_PER_ORGANIZATION:
            raise TooManyKeysError
        key = ApiKey.objects.create(
            organization=organization,
            name=name,
            prefix=new.prefix,
            last_four=new.last_four,
            secret_sha256=new.sha256,
            created_by=created_by,
            owner=owner or created_by,
            is_management=is_management,
            role=role or "",
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


def disable_key(key: ApiKey, *, disabled_by: User | None = None) -> bool:
    """Let the key be refused until it is enabled again. Returns False when it was disabled or revoked before."""
    those = ApiKey.objects.filter(disabled_at=None)
    return _switch(key, those, disabled_at=timezone.now(), disabled_by=disabled_by)


def enable_key(key: ApiKey, *, enabled_by: User | None, manages_all: bool) -> bool:
    """Let a disabled key work again. Returns False when it was not disabled, or is revoked.

    Who manages only their own keys enables what they disabled. Raises DisabledByAnotherError.
    """
    those = ApiKey.objects.exclude(disabled_at=None)
    if not manages_all:
        own = those.filter(disabled_by=enabled_by) if enabled_by else those.none()
        if _switch(key, own, disabled_at=None, disabled_by=None):
            return True
        if key.is_disabled and not key.is_revoked:
            raise DisabledByAnotherError
        return False
    return _switch(key, those, disabled_at=None, disabled_by=None)


def hand_over_keys(organization: Organization, *, of: User, to: User, disabled_by: User | None) -> int:
    """Let another member own the live keys of this one; return how many they are. What they may do stays.

    Management keys are disabled: whoever leaves knows their secret, and could let themselves in again.
    """
    with transaction.atomic():
        keys = list(organization.keys.select_for_update().filter(owner=of, revoked_at=None).order_by("pk"))
        ApiKey.objects.filter(pk__in=[key.pk for key in keys]).update(owner=to)
        for key in keys:
            if key.is_management:
                disable_key(key, disabled_by=disabled_by)
            record_key_change(key)  # From now on it counts for the budget of another member.
    return len(keys)


def disable_keys(*, of: User, organization: Organization | None = None, disabled_by: User | None = None) -> int:
    """Disable the live keys that somebody owns, of one organization or of all; return how many were not before."""
    keys = ApiKey.objects.filter(owner=of, revoked_at=None, disabled_at=None)
    if organization is not None:
        keys = keys.filter(organization=organization)
    with transaction.atomic():
        return sum(disable_key(key, disabled_by=disabled_by) for key in list(keys.order_by("pk")))


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


def _require_members(
    organization: Organization, created_by: User | None, owner: User | None, role: Role | None
) -> None:
    """Raise NotAMemberError. Who removes a member locks the organization, as the caller has: it is one or the other."""
    people = {person.pk for person in (created_by, owner) if person is not None}
    roles = dict(organization.members.filter(user__in=people).values_list("user_id", "role"))
    if people - set(roles):
        raise NotAMemberError
    if role is not None and created_by is not None and role not in roles_for_keys(roles[created_by.pk]):
        raise NotAMemberError


def _switch(key: ApiKey, those: QuerySet[ApiKey], *, disabled_at: datetime | None, disabled_by: User | None) -> bool:
    with transaction.atomic():
        changed = those.filter(pk=key.pk, revoked_at=None).update(
            disabled_at=disabled_at, disabled_by=disabled_by, config_version=F("config_version") + 1
        )
        if changed:
            record_key_change(key)
    key.refresh_from_db()
    return bool(changed)
