"""Adds, changes and removes members. An organization never loses its last owner.

Nobody becomes a member with an address that is not shown to be theirs: anybody can sign up with the address of another.
"""

from allauth.account.models import EmailAddress
from django.db import IntegrityError, transaction

from accounts.access import Permission, may, roles_for_keys
from accounts.key_secrets import end_lent_secrets
from accounts.keys import disable_key, disable_keys, hand_over_keys
from accounts.models import Member, Organization, Role, User

MAX_MEMBERS_PER_ORGANIZATION = 1000


class AlreadyMemberError(Exception):
    """The person is a member already."""


class AddressNotConfirmedError(Exception):
    """The login has not confirmed the address that it goes by, or that was invited."""


class LastOwnerError(Exception):
    """The organization would be left without an owner."""


class NoKeysForThemError(Exception):
    """Keys cannot be handed over to this person, who is no member or has a role without keys."""


class TooManyMembersError(Exception):
    """The organization has MAX_MEMBERS_PER_ORGANIZATION members already."""


def add_member(organization: Organization, *, user: User, role: Role) -> Member:
    """Return the new member. Raises AddressNotConfirmedError, AlreadyMemberError, TooManyMembersError."""
    if not has_confirmed(user, user.email):
        raise AddressNotConfirmedError
    if organization.members.count() >= MAX_MEMBERS_PER_ORGANIZATION:
        raise TooManyMembersError
    try:
        with transaction.atomic():
            return Member.objects.create(organization=organization, user=user, role=role)
    except IntegrityError:
        raise AlreadyMemberError from None


def has_confirmed(user: User, email: str) -> bool:
    """Say whether the login has shown that the address is its own."""
    return bool(EmailAddress.objects.filter(user=user, email__iexact=email, verified=True).exists())


def change_role(member: Member, *, role: Role) -> None:
    """Give the member another role. Their management keys that may more are disabled. Raises LastOwnerError."""
    with transaction.atomic():
        _lock_and_keep_an_owner(member, is_owner_after=role == Role.OWNER)
        Member.objects.filter(pk=member.pk).update(role=role)
        owned = member.organization.keys.filter(owner=member.user, is_management=True, revoked_at=None)
        for key in owned.order_by("pk"):
            if key.acting_role not in roles_for_keys(role):
                disable_key(key)
        end_lent_secrets(member.user, organization=member.organization)


def remove_member(member: Member, *, keys_go_to: User | None = None, removed_by: User | None = None) -> int:
    """End the membership; return how many live keys the person owned.

    They are handed over to `keys_go_to`, a member who may have keys, or else disabled, as management keys are in any
    case. What the console lent the person ends. Raises LastOwnerError, NoKeysForThemError.
    """
    organization, person = member.organization, member.user
    with transaction.atomic():
        _lock_and_keep_an_owner(member, is_owner_after=False)
        owned = organization.keys.filter(owner=person, revoked_at=None).count()
        if keys_go_to is None:
            disable_keys(of=person, organization=organization, disabled_by=removed_by)
        elif keys_go_to.pk == person.pk or keys_go_to not in key_takers(organization):
            raise NoKeysForThemError
        else:
            hand_over_keys(organization, of=person, to=keys_go_to, disabled_by=removed_by)
        end_lent_secrets(person, organization=organization)
        Member.objects.filter(pk=member.pk).delete()
    return owned


def key_takers(organization: Organization) -> list[User]:
    """Return the members who may own keys, by their address."""
    roles = [role for role in Role if may(role, Permission.MANAGE_KEYS)]
    members = organization.members.filter(role__in=roles, user__is_active=True).select_related("user")
    return [member.user for member in members.order_by("user__email")]


def _lock_and_keep_an_owner(member: Member, *, is_owner_after: bool) -> None:
    # The organization's row is the lock, so that two owners cannot demote each other at the same moment.
    Organization.objects.select_for_update().get(pk=member.organization_id)
    others = Member.objects.filter(organization=member.organization_id, role=Role.OWNER).exclude(pk=member.pk)
    if not is_owner_after and not others.exists():
        is_owner_now = Member.objects.filter(pk=member.pk, role=Role.OWNER).exists()
        if is_owner_now:
            raise LastOwnerError
