"""Adds, changes and removes members. An organization never loses its last owner."""

from django.db import IntegrityError, transaction

from accounts.models import Member, Organization, Role, User

MAX_MEMBERS_PER_ORGANIZATION = 1000


class AlreadyMemberError(Exception):
    """The person is a member already."""


class LastOwnerError(Exception):
    """The organization would be left without an owner."""


class TooManyMembersError(Exception):
    """The organization has MAX_MEMBERS_PER_ORGANIZATION members already."""


def add_member(organization: Organization, *, user: User, role: Role) -> Member:
    """Return the new member. Raises AlreadyMemberError and TooManyMembersError."""
    if organization.members.count() >= MAX_MEMBERS_PER_ORGANIZATION:
        raise TooManyMembersError
    try:
        with transaction.atomic():
            return Member.objects.create(organization=organization, user=user, role=role)
    except IntegrityError:
        raise AlreadyMemberError from None


def change_role(member: Member, *, role: Role) -> None:
    """Give the member another role. Raises LastOwnerError."""
    with transaction.atomic():
        _lock_and_keep_an_owner(member, is_owner_after=role == Role.OWNER)
        Member.objects.filter(pk=member.pk).update(role=role)


def remove_member(member: Member) -> None:
    """End the membership; keys that the person made go on working. Raises LastOwnerError."""
    with transaction.atomic():
        _lock_and_keep_an_owner(member, is_owner_after=False)
        Member.objects.filter(pk=member.pk).delete()


def _lock_and_keep_an_owner(member: Member, *, is_owner_after: bool) -> None:
    # The organization's row is the lock, so that two owners cannot demote each other at the same moment.
    Organization.objects.select_for_update().get(pk=member.organization_id)
    others = Member.objects.filter(organization=member.organization_id, role=Role.OWNER).exclude(pk=member.pk)
    if not is_owner_after and not others.exists():
        is_owner_now = Member.objects.filter(pk=member.pk, role=Role.OWNER).exists()
        if is_owner_now:
            raise LastOwnerError
