"""Closes an organization at its owner's word. What the ledger and documents hold stays: it is a record."""

from django.db import transaction
from django.utils import timezone

from accounts.keys import revoke_key
from accounts.models import Organization, Role, User
from accounts.organizations import change_organization

STAYING_ROLES = (Role.OWNER, Role.BILLING)  # They still read and download documents.


class WrongNameError(Exception):
    """The name that was typed is not the organization's."""


def close_organization(organization: Organization, *, name: str, closed_by: User) -> Organization:
    """Close it for good: its keys are revoked, invitations end, and members leave but for STAYING_ROLES.

    Once published, no gateway admits anything of it. An operator alone can open it again, without its keys.
    Raises WrongNameError.
    """
    with transaction.atomic():
        locked = Organization.objects.select_for_update().get(pk=organization.pk)
        if name.strip() != locked.name.strip():
            raise WrongNameError
        closed = change_organization(locked, fields={"status": Organization.Status.CLOSED})
        for key in locked.keys.filter(revoked_at=None).order_by("pk"):
            revoke_key(key, revoked_by=closed_by)
        locked.invitations.filter(accepted_at=None, withdrawn_at=None).update(withdrawn_at=timezone.now())
        locked.members.exclude(role__in=STAYING_ROLES).delete()
    return closed
