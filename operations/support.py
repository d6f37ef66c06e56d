"""Hands a request over to support: a mail to everybody who has the role, with a note and a link to the whole story."""

from collections.abc import Iterable
from uuid import UUID

from accounts.models import User
from billing.mail_outbox import MailToQueue, queue_mails
from billing.usage.story import RequestStory

MAIL_TEMPLATE = "request_for_support"


def mail_to_support(people: Iterable[User], *, story: RequestStory, note: str, sender: User, form_id: UUID) -> None:
    """Queue the mails; the same form queues none again."""
    queue_mails(
        MailToQueue(
            user_id=person.pk,
            organization_id=story.organization.pk if story.organization else None,
            template=MAIL_TEMPLATE,
            once_key=f"support:{form_id.hex}:{person.pk}",
            context={"request": story.request_id.hex, "note": note, "sender": str(sender)},
        )
        for person in people
    )
