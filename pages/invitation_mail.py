"""The mail that invites somebody to an organization, from a page or over the API."""

from allauth.account.adapter import get_adapter
from django.conf import settings
from django.http import HttpRequest
from django.urls import reverse

from accounts.invitations import LIFETIME
from accounts.models import Invitation


def mail_invitation(request: HttpRequest, invitation: Invitation, token: str) -> None:
    """Send the token to the invited address, and nowhere else."""
    context = {
        "invitation": invitation,
        "role": invitation.get_role_display().lower(),
        "inviter": invitation.invited_by.email,
        "url": settings.BASE_URL + reverse("invitation", kwargs={"token": token}),
        "days": LIFETIME.days,
    }
    get_adapter(request).send_mail("account/email/invitation", invitation.email, context)
