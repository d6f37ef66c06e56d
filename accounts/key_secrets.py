"""The secrets of a key: found by its SHA-256, rotated with an overlap, lent to a page for some minutes.

A secret that ends early is refused by every gateway at once: the key's config_version grows, so ADMIT calls what a
gateway remembers of the key old, and it reads the secret again.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from accounts.key_format import MAX_KEY_CHARS, hash_key, is_well_formed, make_key
from accounts.keys import KeyAlreadyRevokedError
from accounts.models import ApiKey, Organization, TemporarySecret, User
from accounts.outbox import record_key_change

MAX_OVERLAP = timedelta(days=30)
PAGE_SECRET_LIFETIME = timedelta(minutes=10)
FoundKey = tuple[ApiKey, datetime | None]  # With the time at which the secret ends by itself, where it does.
MAX_TEMPORARY_SECRETS = 50  # Of a key; a new one ends the oldest.


class OverlapError(ValueError):
    """An overlap is from nothing to MAX_OVERLAP."""


def find_key(text: str) -> ApiKey | None:
    """Return the key whose secret this is, with its organization, whatever its status; None when it is nobody's."""
    if len(text) > MAX_KEY_CHARS or not is_well_formed(text):
        return None
    found = find_by_digest(hash_key(text))
    return found[0] if found else None


def find_by_digest(digest: bytes) -> FoundKey | None:
    """Return the key with this SHA-256 of a secret, and when the secret ends; None when it is nobody's."""
    return find_by_digests([digest]).get(digest)


def find_by_digests(digests: Collection[bytes]) -> dict[bytes, FoundKey]:
    """Return the same by digest for those that are somebody's, in two queries at most."""
    keys = ApiKey.objects.select_related("organization").filter(secret_sha256__in=digests)
    found: dict[bytes, FoundKey] = {bytes(key.secret_sha256): (key, None) for key in keys}
    if others := [digest for digest in digests if digest not in found]:
        secrets = TemporarySecret.objects.select_related("key__organization")
        for secret in secrets.filter(secret_sha256__in=others, ends_at__gt=timezone.now()):
            found[bytes(secret.secret_sha256)] = (secret.key, secret.ends_at)
    return found


def rotate_secret(key: ApiKey, *, overlap: timedelta) -> tuple[ApiKey, str]:
    """Give the key a new secret and return both; its text is stored nowhere. The one before works for `overlap` more.

    Without an overlap all other secrets of the key end at once, once the change is published.
    Raises OverlapError, KeyAlreadyRevokedError.
    """
    if not timedelta() <= overlap <= MAX_OVERLAP:
        raise OverlapError(f"An overlap is from 0 to {MAX_OVERLAP.days} days.")
    new = make_key()
    with transaction.atomic():
        locked = _lock(key)
        if overlap:
            _add(locked, bytes(locked.secret_sha256), ends_at=timezone.now() + overlap, user=None)
        else:
            locked.temporary_secrets.all().delete()
        locked.secret_sha256, locked.prefix, locked.last_four = new.sha256, new.prefix, new.last_four
        locked.config_version += 1
        locked.save(update_fields=["secret_sha256", "prefix", "last_four", "config_version"])
        record_key_change(locked)
    return locked, new.text


def lend_secret(key: ApiKey, *, user: User) -> tuple[str, datetime]:
    """Return the text of a second secret of the key, for a page of this person, and when it ends.

    What is asked with it is asked with the key: the same limits, budgets and restrictions, the same line on the bill.
    Raises KeyAlreadyRevokedError.
    """
    new = make_key()
    ends_at = timezone.now() + PAGE_SECRET_LIFETIME
    with transaction.atomic():
        _add(_lock(key), new.sha256, ends_at=ends_at, user=user)
    return new.text, ends_at


def end_lent_secrets(user: User, *, organization: Organization | None = None) -> int:
    """End what was lent to pages of this person, who signs out or leaves; return how many secrets that were."""
    secrets = TemporarySecret.objects.filter(user=user)
    if organization is not None:
        secrets = secrets.filter(key__organization=organization)
    with transaction.atomic():
        keys = ApiKey.objects.select_for_update().filter(pk__in=secrets.values("key")).order_by("pk")
        for key in keys:
            _see_to_it(key)
        return secrets.delete()[0]


def end_former_secrets(key: ApiKey) -> int:
    """End what the key was called with before it was rotated, at once; return how many secrets that were.

    Raises KeyAlreadyRevokedError.
    """
    with transaction.atomic():
        locked = _lock(key)
        ended = locked.temporary_secrets.filter(user=None).delete()[0]
        if ended:
            _see_to_it(locked)
    return ended


def _lock(key: ApiKey) -> ApiKey:
    locked = ApiKey.objects.select_for_update().get(pk=key.pk)
    if locked.is_revoked:
        raise KeyAlreadyRevokedError
    return locked


def _add(key: ApiKey, digest: bytes, *, ends_at: datetime, user: User | None) -> None:
    """Add a second secret to a key that is locked; it makes room where there is none."""
    key.temporary_secrets.filter(ends_at__lte=timezone.now()).delete()
    kept = list(key.temporary_secrets.order_by("-id").values_list("pk", flat=True)[: MAX_TEMPORARY_SECRETS - 1])
    if key.temporary_secrets.exclude(pk__in=kept).delete()[0]:
        _see_to_it(key)
    TemporarySecret.objects.create(key=key, secret_sha256=digest, ends_at=ends_at, user=user)


def _see_to_it(key: ApiKey) -> None:
    """Let no gateway go on by what it remembers of a key that is locked."""
    key.config_version += 1
    key.save(update_fields=["config_version"])
    record_key_change(key)
