"""An API key that strangers can read: it is revoked everywhere at once, and its people are told."""

from dataclasses import dataclass

from django.db import transaction

from accounts.key_format import hash_key, is_well_formed
from accounts.keys import KeyAlreadyRevokedError, revoke_key
from accounts.models import ApiKey, Member, Role, User
from billing.mail_outbox import MailToQueue, queue_mails

MAX_PLACE_CHARS = 300
TOLD_ROLES = (Role.OWNER, Role.ADMIN)


@dataclass(frozen=True, slots=True)
class Leak:
    """`key` is None for a text that is no key of ours; `is_new` is True when it was revoked by this."""

    key: ApiKey | None
    is_new: bool = False


def find_by_text(text: str) -> ApiKey | None:
    """Return the key with exactly this text, revoked or not."""
    if not is_well_formed(text):
        return None
    return ApiKey.objects.select_related("organization").filter(secret_sha256=hash_key(text)).first()


def find_by_prefix(prefix: str) -> list[ApiKey]:
    """Return the keys with this prefix (`cm-` and eight characters): one, but for a chance of one in 10^14."""
    return list(ApiKey.objects.select_related("organization").filter(prefix=prefix))


def revoke_leaked(key: ApiKey, *, place: str, revoked_by: User | None) -> Leak:
    """Revoke the key and queue a mail to its maker and to the organization's owners and admins, in one transaction.

    Twice changes nothing. The key is dead once the change is published, which is left to the caller.
    """
    with transaction.atomic():
        try:
            revoke_key(key, revoked_by=revoked_by)
        except KeyAlreadyRevokedError:
            return Leak(key)
        people = Member.objects.filter(organization=key.organization, user__is_active=True)
        told = set(people.filter(role__in=TOLD_ROLES).values_list("user_id", flat=True))
        if key.created_by_id and people.filter(user=key.created_by_id).exists():
            told.add(key.created_by_id)
        queue_mails(
            MailToQueue(
                user_id=user_id,
                organization_id=key.organization_id,
                template="key_leaked",
                once_key=f"key_leaked:{key.pk}:{user_id}",
                context={"key": key.pk, "place": _printable(place)[:MAX_PLACE_CHARS]},
            )
            for user_id in sorted(told)
        )
    return Leak(key, is_new=True)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
