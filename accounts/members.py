"""Adds, changes and removes members. An organization never loses its last owner.

Nobody becomes a member with an address that is not shown to be theirs: anybody can sign up with the address of another.
"""

from allauth.account.models import EmailAddress
from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from accounts.access import Permission, may, roles_for_keys
from accounts.key_secrets import end_lent_secrets
from accounts.keys import disable_key, disable_keys, hand_over_keys
from accounts.models import ApiKey, Member, Organization, Role, User

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


def change_role(
    member: Member,
    *,
    role: Role,
    keys_go_to: User | None = None,
    keeps_keys: bool = False,
    changed_by: User | None = None,
) -> int:
    """Give the member another role; return how many of their live keys it ended or handed over.

    Management keys that may more than the role are disabled. Where the role has no keys, all that the person owns are
    disabled, or handed over to `keys_go_to`, a member who may have keys; with `keeps_keys` those that call models stay
    as they are. Raises LastOwnerError, NoKeysForThemError.
    """
    organization, person = member.organization, member.user
    with transaction.atomic():
        _lock_and_keep_an_owner(member, is_owner_after=role == Role.OWNER)
        Member.objects.filter(pk=member.pk).update(role=role)
        ending = list(keys_beyond(member, role))
        if keys_go_to is not None and not may(role, Permission.MANAGE_KEYS):
            _require_taker(organization, person, keys_go_to)
            hand_over_keys(organization, of=person, to=keys_go_to, disabled_by=changed_by)
        else:
            ending = [key for key in ending if key.is_management or not keeps_keys]
            for key in ending:
                disable_key(key, disabled_by=changed_by)
        end_lent_secrets(person, organization=organization)
    return len(ending)


def keys_beyond(member: Member, role: Role) -> QuerySet[ApiKey]:
    """Return the live keys that the member owns and could not have in another role: those end with the change."""
    owned = member.organization.keys.filter(owner=member.user, revoked_at=None, disabled_at=None).order_by("pk")
    if not may(role, Permission.MANAGE_KEYS):
        return owned
    return owned.filter(is_management=True).exclude(role__in=roles_for_keys(role))


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
        else:
            _require_taker(organization, person, keys_go_to)
            hand_over_keys(organization, of=person, to=keys_go_to, disabled_by=removed_by)
        end_lent_secrets(person, organization=organization)
        Member.objects.filter(pk=member.pk).delete()
    return owned


def end_management(person: User, *, ended_by: User | None = None) -> int:
    """Disable the management keys of somebody whose login was closed, in all organizations; return how many.

    What the console lent the person ends. Keys that call models stay: they are their organizations'.
    """
    with transaction.atomic():
        end_lent_secrets(person)
        keys = list(ApiKey.objects.filter(owner=person, is_management=True, revoked_at=None).order_by("pk"))
        return sum(disable_key(key, disabled_by=ended_by) for key in keys)


def is_last_owner(member: Member) -> bool:
    owners = Member.objects.filter(organization=member.organization_id, role=Role.OWNER)
    return owners.filter(pk=member.pk).exists() and not owners.exclude(pk=member.pk).exists()


def key_takers(organization: Organization) -> list[User]:
    """Return the members who may own keys, by their address."""
    roles = [role for role in Role if may(role, Permission.MANAGE_KEYS)]
    members = organization.members.filter(role__in=roles, user__is_active=True).select_related("user")
    return [member.user for member in members.order_by("user__email")]


def _require_taker(organization: Organization, person: User, taker: User) -> None:
    if taker.pk == person.pk or taker not in key_takers(organization):
        raise NoKeysForThemError


def _lock_and_keep_an_owner(member: Member, *, is_owner_after: bool) -> None:
    # The organization's row is the lock, so that two owners cannot demote each other at the same moment.
    Organization.objects.select_for_update().get(pk=member.organization_id)
    if not is_owner_after and is_last_owner(member):
        raise LastOwnerError
