"""Sends the outbox of mail: renders each mail for the person and address of this moment, in plain text and in HTML.

A mail is a folder templates/mail/<template>/ with subject.txt, body.txt and body.html, and a function in CONTEXTS that
reads what they show. What is no longer worth telling when its turn comes is dropped.
"""

import logging
from collections.abc import Callable, Mapping
from email.utils import parseaddr
from smtplib import SMTPException
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core.mail import EmailMultiAlternatives, get_connection
from django.core.mail.backends.base import BaseEmailBackend
from django.template.loader import render_to_string
from django.urls import reverse

from accounts.members import has_confirmed
from accounts.models import ApiKey, Member
from accounts.staff_roles import StaffRole, staff_roles
from billing.approvals.kinds import describe
from billing.approvals.notices import may_decide
from billing.catalog import notices as price_notices
from billing.catalog.load import describe_version
from billing.catalog.price_versions import drafts_that_wait
from billing.mail_outbox import claim_mails, note_failed, note_sent
from billing.models import Alert, Approval, DeletionRequest, OutgoingMail
from billing.usage.story import tell_story
from pages.alert_text import describe_alert
from pages.templatetags.amounts import usd

MAX_MAILS_PER_ROUND = 50
MAX_ALERTS_SHOWN = 20
MAX_DRAFTS_SHOWN = 20
MAX_SUBJECT_CHARS = 150

logger = logging.getLogger(__name__)


class NotWorthTellingError(Exception):
    """There is nothing left to tell, or nobody to tell it to; the text says which."""


def send_due_mails(*, limit: int = MAX_MAILS_PER_ROUND) -> int:
    """Send mails that are due, over one connection; return how many went out. What fails is tried again later."""
    mails = claim_mails(limit=limit)
    if not mails:
        return 0
    connection = get_connection()
    sent = 0
    try:
        for mail in mails:
            sent += _send(mail, connection)
    finally:
        _close(connection)
    return sent


def _send(mail: OutgoingMail, connection: BaseEmailBackend) -> bool:
    try:
        message = render_mail(mail)
        message.connection = connection
        message.send()
    except NotWorthTellingError as error:
        note_failed(mail, problem=str(error), is_final=True)
        return False
    except (OSError, SMTPException) as error:
        logger.warning("Mail %s is put off: %s", mail.pk, error)
        note_failed(mail, problem=f"{type(error).__name__}: {error}")
        _close(connection)  # What is left of it would fail the next mail too.
        return False
    except Exception as error:
        logger.exception("Mail %s cannot be made.", mail.pk)
        note_failed(mail, problem=f"{type(error).__name__}: {error}")
        return False
    note_sent(mail.pk, address=message.to[0])
    return True


def render_mail(mail: OutgoingMail) -> EmailMultiAlternatives:
    """Return the message as it goes out now. Raises NotWorthTellingError."""
    address = mail.user.email
    if not mail.user.is_active or not has_confirmed(mail.user, address):
        raise NotWorthTellingError("The person has no confirmed address.")
    context = {**CONTEXTS[mail.template](mail), "mail": mail, "base_url": settings.BASE_URL}
    subject = " ".join(render_to_string(f"mail/{mail.template}/subject.txt", context).split())
    message = EmailMultiAlternatives(
        subject=f"CrossModel: {subject}"[:MAX_SUBJECT_CHARS],
        body=render_to_string(f"mail/{mail.template}/body.txt", context).strip() + "\n",
        to=[address],
        headers={"Message-ID": f"<{mail.pk}@{_domain()}>", "Auto-Submitted": "auto-generated"},
    )
    message.attach_alternative(render_to_string(f"mail/{mail.template}/body.html", context), "text/html")
    return message


def _alerts(mail: OutgoingMail) -> Mapping[str, Any]:
    """Show what is still open; what was cleared while the mail waited is not worth a word."""
    membership = Member.objects.filter(user=mail.user, organization=mail.organization_id).first()
    if membership is None:
        raise NotWorthTellingError("The person is no longer a member.")
    ids = mail.context["alerts"]
    alerts = Alert.objects.filter(pk__in=ids, cleared_at=None).select_related("key", "organization").order_by("pk")
    texts = [describe_alert(alert, role=membership.role) for alert in alerts]
    if not texts:
        raise NotWorthTellingError("It was over before the mail could be sent.")
    return {
        "organization": membership.organization,
        "role": membership.get_role_display().lower(),
        "alerts": texts[:MAX_ALERTS_SHOWN],
        "first": texts[0],
        "count": len(texts),
        "more": max(0, len(texts) - MAX_ALERTS_SHOWN),
    }


def _key_leaked(mail: OutgoingMail) -> Mapping[str, Any]:
    membership = Member.objects.filter(user=mail.user, organization=mail.organization_id).first()
    key = ApiKey.objects.filter(pk=mail.context["key"]).first()
    if membership is None or key is None:
        raise NotWorthTellingError("The person is no longer a member, or the key is gone.")
    role = membership.get_role_display().lower()
    return {"organization": membership.organization, "role": role, "key": key, "place": mail.context["place"]}


def _deletion(mail: OutgoingMail) -> Mapping[str, Any]:
    membership = Member.objects.filter(user=mail.user, organization=mail.organization_id).first()
    deletion = DeletionRequest.objects.filter(pk=mail.context["deletion"], ended_at=None).first()
    if membership is None or deletion is None:
        raise NotWorthTellingError("The person is no longer a member, or it was withdrawn.")
    role = membership.get_role_display().lower()
    return {"organization": membership.organization, "role": role, "deletion": deletion}


def _approval(mail: OutgoingMail) -> Mapping[str, Any]:
    approvals = Approval.objects.select_related("organization", "asked_by")
    approval = approvals.filter(pk=mail.context["approval"]).first()
    if approval is None or not approval.is_open:
        raise NotWorthTellingError("It was decided before the mail could be sent.")
    if not may_decide(approval, mail.user):
        raise NotWorthTellingError("The person does not decide such things any more.")
    return {"approval": approval, "change": describe(approval)}


def _price_drafts(mail: OutgoingMail) -> Mapping[str, Any]:
    drafts = drafts_that_wait().filter(pk__in=mail.context["drafts"]).order_by("pk")
    count = drafts.count()
    if not count:
        raise NotWorthTellingError("It was decided before the mail could be sent.")
    if not price_notices.may_approve(mail.user):
        raise NotWorthTellingError("The person does not approve prices any more.")
    related = drafts.select_related("language_model", "upstream").prefetch_related("components")
    shown = list(related[:MAX_DRAFTS_SHOWN])
    return {
        "drafter": shown[0].created_by,
        "lines": [describe_version(draft) for draft in shown],
        "one": count == 1,
        "path": reverse("admin:billing_priceversion_change", args=[shown[0].pk])
        if count == 1
        else reverse("admin:billing_priceversion_changelist") + "?state=draft",
        "count": count,
        "more": count - len(shown),
    }


def _request_for_support(mail: OutgoingMail) -> Mapping[str, Any]:
    story = tell_story(UUID(mail.context["request"]))
    if story is None:
        raise NotWorthTellingError("The request is gone.")
    if StaffRole.SUPPORT not in staff_roles(mail.user):
        raise NotWorthTellingError("The person is no longer support.")
    return {
        "story": story,
        "ending": story.ending,
        "paid": usd(story.billed.current_nanos) if story.billed else "",
        "note": mail.context["note"],
        "sender": mail.context["sender"],
    }


CONTEXTS: dict[str, Callable[[OutgoingMail], Mapping[str, Any]]] = {
    "alerts": _alerts,
    "approval": _approval,
    "deletion": _deletion,
    "key_leaked": _key_leaked,
    "price_drafts": _price_drafts,
    "request_for_support": _request_for_support,
}


def _domain() -> str:
    return parseaddr(settings.DEFAULT_FROM_EMAIL)[1].rpartition("@")[2] or "localhost"


def _close(connection: BaseEmailBackend) -> None:
    try:
        connection.close()
    except (OSError, SMTPException) as error:
        logger.info("The mail server was left without a good-bye: %s", error)
