"""Invites people to an organization by e-mail, and lets in whoever shows that the address is theirs.

Two things make a member: the token that went to the address by mail, and a login whose confirmed address it is. Either
alone is not enough: somebody may sign up with the address of another, and somebody may forward a mail. What the inviter
is told is the same for every address, so that nobody learns here who has an account.
"""

import hashlib
import secrets
from datetime import timedelta

from django.db import connection, transaction
from django.utils import timezone

from accounts.access import Permission, may
from accounts.members import AddressNotConfirmedError, AlreadyMemberError, add_member, has_confirmed
from accounts.models import Invitation, Member, Organization, Role, User

LIFETIME = timedelta(days=7)
MAX_OPEN_INVITATIONS = 100  # Of an organization.
MAX_INVITATIONS_PER_DAY = 100  # Of an organization; each sends a mail.
MAX_INVITATIONS_PER_ADDRESS_AND_DAY = 5  # From everybody together: nobody's mailbox is flooded.
TOKEN_BYTES = 32
ADDRESS_LOCK = 7_303_031  # With the hash of an address: organizations invite it in turn.


class TooManyInvitationsError(Exception):
    """The organization or the address has had as many invitations as it may; the text says which."""


class OwnerInvitedError(Exception):
    """The address is invited as an owner, and who invites it now may make none: it would take that invitation away."""


class InvitationGoneError(Exception):
    """The invitation was accepted, withdrawn or replaced, it expired, or who sent it may not invite any more."""


def invite(
    organization: Organization, *, email: str, role: Role, invited_by: User, may_make_owners: bool = False
) -> tuple[Invitation, str]:
    """Return a new invitation and its token, which is kept nowhere. It replaces an open one for the same address.

    Raises AlreadyMemberError, OwnerInvitedError, TooManyInvitationsError.
    """
    address = email.strip().lower()
    token = secrets.token_urlsafe(TOKEN_BYTES)
    now = timezone.now()
    with transaction.atomic():
        Organization.objects.select_for_update().get(pk=organization.pk)  # The counts below hold until the commit.
        if Member.objects.filter(organization=organization, user__email__iexact=address).exists():
            raise AlreadyMemberError
        open_ones = Invitation.objects.filter(
            organization=organization, email=address, accepted_at=None, withdrawn_at=None
        )
        if not may_make_owners and open_ones.filter(role=Role.OWNER, expires_at__gt=now).exists():
            raise OwnerInvitedError
        open_ones.update(withdrawn_at=now)
        _check_room(organization, address)
        invitation = Invitation.objects.create(
            organization=organization,
            email=address,
            role=role,
            token_sha256=_hash(token),
            invited_by=invited_by,
            created_at=now,
            expires_at=now + LIFETIME,
        )
    return invitation, token


def find_invitation(token: str) -> Invitation | None:
    """Return the invitation that can still be accepted with this token, or None."""
    found = Invitation.objects.select_related("organization", "invited_by").filter(
        token_sha256=_hash(token), accepted_at=None, withdrawn_at=None, expires_at__gt=timezone.now()
    )
    invitation = found.first()
    return invitation if invitation and _may_still_invite(invitation) else None


def open_invitations(organization: Organization) -> list[Invitation]:
    """Return the invitations that wait for an answer, newest first."""
    waiting = organization.invitations.filter(accepted_at=None, withdrawn_at=None, expires_at__gt=timezone.now())
    return list(waiting.select_related("invited_by")[:MAX_OPEN_INVITATIONS])


def accept_invitation(invitation: Invitation, *, user: User) -> Member:
    """Make the user a member and end the invitation. `invitation` was found by its token.

    Raises AddressNotConfirmedError, InvitationGoneError, AlreadyMemberError, TooManyMembersError.
    """
    if not has_confirmed(user, invitation.email):
        raise AddressNotConfirmedError
    with transaction.atomic():
        Organization.objects.select_for_update().get(pk=invitation.organization_id)
        accepted = Invitation.objects.filter(
            pk=invitation.pk, accepted_at=None, withdrawn_at=None, expires_at__gt=timezone.now()
        ).update(accepted_at=timezone.now(), accepted_by=user)
        if not accepted or not _may_still_invite(invitation):
            raise InvitationGoneError
        return add_member(invitation.organization, user=user, role=Role(invitation.role))


def withdraw_invitation(invitation: Invitation) -> bool:
    """End an open invitation. Returns False when it had ended before."""
    ended = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, withdrawn_at=None)
    return bool(ended.update(withdrawn_at=timezone.now()))


def _check_room(organization: Organization, address: str) -> None:
    """Raise TooManyInvitationsError when another invitation would be one too many. The counts hold until the commit:
    the organization is locked by the caller, the address here.
    """
    now = timezone.now()
    since = now - timedelta(days=1)
    waiting = organization.invitations.filter(accepted_at=None, withdrawn_at=None, expires_at__gt=now).count()
    if waiting >= MAX_OPEN_INVITATIONS:
        raise TooManyInvitationsError(f"{MAX_OPEN_INVITATIONS} invitations wait for an answer. Withdraw one first.")
    if organization.invitations.filter(created_at__gt=since).count() >= MAX_INVITATIONS_PER_DAY:
        raise TooManyInvitationsError("The organization has sent as many invitations as it may in a day.")
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [ADDRESS_LOCK, address])
    if Invitation.objects.filter(email=address, created_at__gt=since).count() >= MAX_INVITATIONS_PER_ADDRESS_AND_DAY:
        raise TooManyInvitationsError("This address has had several invitations today. Try again tomorrow.")


def _may_still_invite(invitation: Invitation) -> bool:
    """Say whether who sent the invitation could send it now: they may have lost their role since."""
    sender = Member.objects.filter(organization=invitation.organization_id, user=invitation.invited_by_id).first()
    if sender is None or not may(sender.role, Permission.MANAGE_MEMBERS):
        return False
    grants_ownership = Role(invitation.role) is Role.OWNER
    return not grants_ownership or may(sender.role, Permission.GRANT_OWNERSHIP)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
