"""Who may do what in an organization. docs/roles.md has the table; pages only ask."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from django.db.models import QuerySet

from accounts.models import ApiKey, Member, Organization, Role, User

MAX_ORGANIZATIONS_SHOWN = 50


class Permission(StrEnum):
    SEE_USAGE = "see_usage"
    MANAGE_KEYS = "manage_keys"  # One's own.
    MANAGE_ALL_KEYS = "manage_all_keys"
    SEE_BILLING = "see_billing"
    MANAGE_MEMBERS = "manage_members"
    MANAGE_ORGANIZATION = "manage_organization"
    MANAGE_ALERTS = "manage_alerts"  # Who is told what, and the webhooks.
    GRANT_OWNERSHIP = "grant_ownership"
    CLOSE_ORGANIZATION = "close_organization"


PERMISSIONS_OF_ROLE: dict[str, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.ADMIN: frozenset(Permission) - {Permission.GRANT_OWNERSHIP, Permission.CLOSE_ORGANIZATION},
    Role.DEVELOPER: frozenset({Permission.SEE_USAGE, Permission.MANAGE_KEYS}),
    Role.BILLING: frozenset({Permission.SEE_USAGE, Permission.SEE_BILLING}),
    Role.VIEWER: frozenset({Permission.SEE_USAGE}),
}


def grantable_roles(role: str) -> list[Role]:
    """Return the roles that one who manages members may give to others, or to keys: only owners make owners."""
    return [given for given in Role if given != Role.OWNER or may(role, Permission.GRANT_OWNERSHIP)]


def roles_for_keys(role: str) -> list[Role]:
    """Return the roles of management keys whose secret one of this role may have."""
    return grantable_roles(role) if may(role, Permission.MANAGE_ALL_KEYS) else []


def may(role: str, permission: Permission) -> bool:
    return permission in PERMISSIONS_OF_ROLE[role]


@dataclass(frozen=True, slots=True)
class Access:
    """One person's membership in the organization that the URL names."""

    organization: Organization
    member: Member
    user: User
    # Of an operator who looks at it for support: reads what a viewer reads, until then, and changes nothing.
    looks_until: datetime | None = None

    def may(self, permission: Permission) -> bool:
        return may(self.member.role, permission)

    def keys(self) -> QuerySet[ApiKey]:
        """Return the keys that the person may see and change: all of them, or their own."""
        keys = self.organization.keys.all()
        return keys if self.may(Permission.MANAGE_ALL_KEYS) else keys.filter(owner=self.user)

    def may_rotate(self, key: ApiKey) -> bool:
        """Whether the person may have a new secret of a key that they may change: never one that may more than they."""
        return not key.is_management or key.acting_role in roles_for_keys(self.member.role)

    def organizations(self) -> list[Organization]:
        """Every organization of the person, for the switcher."""
        return list(Organization.objects.filter(members__user=self.user)[:MAX_ORGANIZATIONS_SHOWN])

    @property
    def granted(self) -> dict[str, bool]:
        """Every permission by its word, for templates: `access.granted.manage_keys`."""
        return {permission.value: self.may(permission) for permission in Permission}


def look_at(organization: Organization, *, operator: User, until: datetime) -> Access:
    """Return what an operator sees of an organization for support: what a viewer sees, and never keys or money."""
    viewer = Member(organization=organization, user=operator, role=Role.VIEWER)
    return Access(organization=organization, member=viewer, user=operator, looks_until=until)


def find_access(user: User, slug: str) -> Access | None:
    """Return the membership, or None alike for an unknown organization and for one that is not the user's."""
    member = Member.objects.select_related("organization").filter(user=user, organization__slug=slug).first()
    return Access(organization=member.organization, member=member, user=user) if member else None
