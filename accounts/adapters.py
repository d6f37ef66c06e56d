"""How allauth makes accounts here."""

import logging
from smtplib import SMTPException
from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from allauth.core import context as allauth_context
from django.contrib import messages

logger = logging.getLogger(__name__)


class AccountAdapter(DefaultAccountAdapter):  # type: ignore[misc]  # allauth ships no types
    def send_mail(self, template_prefix: str, email: str, context: dict[str, Any]) -> None:
        """Send it, or say on the page that it could not be sent: what it was about can be asked for again."""
        try:
            super().send_mail(template_prefix, email, context)
        except (OSError, SMTPException) as error:
            logger.error("Mail to %s could not be sent: %s", email, error)
            messages.error(
                allauth_context.request,
                f"The mail to {email} could not be sent. Please try again in a few minutes.",
            )
