"""The outbox of mail. A mail is queued in the transaction that gives the reason, and sent by pages/mail.py after it.

At least once: whoever takes a mail to send it has it for LEASE_SECONDS, and a crash in between leaves it to the next.
Its Message-ID stays the same, by which mail servers and readers drop a double. At most MAX_ATTEMPTS times, over three
days.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils import timezone

from billing.models import OutgoingMail

LEASE_SECONDS = 120
# A server that is down is asked again after a minute, twice as long each time, but at least every four hours.
FIRST_WAIT_SECONDS = 60
MAX_WAIT_SECONDS = 4 * 3600
MAX_ATTEMPTS = 25
MAX_PROBLEM_CHARS = 300
KEPT = timedelta(days=90)
LATE_AFTER = timedelta(minutes=15)
MAX_ONCE_KEY_CHARS = 200


@dataclass(frozen=True, slots=True)
class MailToQueue:
    """A mail to one person. `once_key` names the reason: under the same key it is queued once."""

    user_id: int
    template: str
    once_key: str
    organization_id: int | None = None
    context: Mapping[str, Any] | None = None


def queue_mails(mails: Iterable[MailToQueue]) -> None:
    """Queue mails, leaving out those that were queued before."""
    OutgoingMail.objects.bulk_create(
        [
            OutgoingMail(
                user_id=mail.user_id,
                organization_id=mail.organization_id,
                template=mail.template,
                context=dict(mail.context or {}),
                once_key=mail.once_key[:MAX_ONCE_KEY_CHARS],
            )
            for mail in mails
        ],
        ignore_conflicts=True,
    )


def claim_mails(*, limit: int) -> list[OutgoingMail]:
    """Take mails that are due, oldest first. Nobody else gets them for LEASE_SECONDS; each take is an attempt."""
    now = timezone.now()
    with transaction.atomic():
        due = OutgoingMail.objects.filter(sent_at=None, given_up_at=None, next_attempt_at__lte=now)
        mails = list(due.order_by("next_attempt_at").select_for_update(skip_locked=True, of=("self",))[:limit])
        for mail in mails:
            mail.attempts += 1
            mail.next_attempt_at = now + timedelta(seconds=LEASE_SECONDS)
        OutgoingMail.objects.bulk_update(mails, ["attempts", "next_attempt_at"])
    return mails


def note_sent(mail_id: UUID, *, address: str) -> None:
    OutgoingMail.objects.filter(pk=mail_id).update(sent_at=timezone.now(), sent_to=address, problem="")


def note_failed(mail: OutgoingMail, *, problem: str, is_final: bool = False) -> None:
    """Write down why it was not sent, and when it is tried again; after the last attempt, or a final one, never."""
    now = timezone.now()
    is_over = is_final or mail.attempts >= MAX_ATTEMPTS
    OutgoingMail.objects.filter(pk=mail.pk, sent_at=None).update(
        problem=problem[:MAX_PROBLEM_CHARS],
        next_attempt_at=now + timedelta(seconds=wait_seconds(mail.attempts)),
        given_up_at=now if is_over else None,
    )


def count_late_mails() -> int:
    """Return how many mails have waited for LATE_AFTER or longer: the mail server is away, or nobody sends."""
    late = OutgoingMail.objects.filter(sent_at=None, given_up_at=None, created_at__lt=timezone.now() - LATE_AFTER)
    return late.count()


def forget_old_mails() -> int:
    """Delete mails of long ago, and return how many that were."""
    return OutgoingMail.objects.filter(created_at__lt=timezone.now() - KEPT).delete()[0]


def wait_seconds(attempts: int) -> int:
    """Return how long to wait after so many failed attempts."""
    return int(min(FIRST_WAIT_SECONDS * 2 ** min(attempts - 1, 20), MAX_WAIT_SECONDS))
