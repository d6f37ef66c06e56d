"""Who may do what in an organization, and the one door through which every console page is entered."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import wraps
from typing import Any, Concatenate

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseBase

from accounts.models import Member, Organization, Role, User

MAX_ORGANIZATIONS_SHOWN = 50
LAST_ORGANIZATION = "organization"  # Session key: the slug that `/console/` leads to.


class Permission(StrEnum):
    SEE_USAGE = "see_usage"
    MANAGE_KEYS = "manage_keys"  # One's own.
    MANAGE_ALL_KEYS = "manage_all_keys"
    SEE_BILLING = "see_billing"
    MANAGE_MEMBERS = "manage_members"
    MANAGE_ORGANIZATION = "manage_organization"
    GRANT_OWNERSHIP = "grant_ownership"


PERMISSIONS_OF_ROLE: dict[str, frozenset[Permission]] = {
    Role.OWNER: frozenset(Permission),
    Role.ADMIN: frozenset(Permission) - {Permission.GRANT_OWNERSHIP},
    Role.DEVELOPER: frozenset({Permission.SEE_USAGE, Permission.MANAGE_KEYS}),
    Role.BILLING: frozenset({Permission.SEE_USAGE, Permission.SEE_BILLING}),
    Role.VIEWER: frozenset({Permission.SEE_USAGE}),
}


def may(role: str, permission: Permission) -> bool:
    return permission in PERMISSIONS_OF_ROLE[role]


@dataclass(frozen=True, slots=True)
class Access:
    """One person's membership in the organization that the URL names."""

    organization: Organization
    member: Member
    user: User

    def may(self, permission: Permission) -> bool:
        return may(self.member.role, permission)

    def organizations(self) -> list[Organization]:
        """Every organization of the person, for the switcher."""
        return list(Organization.objects.filter(members__user=self.user)[:MAX_ORGANIZATIONS_SHOWN])

    @property
    def granted(self) -> dict[str, bool]:
        """Every permission by its word, for templates: `access.granted.manage_keys`."""
        return {permission.value: self.may(permission) for permission in Permission}


def find_access(user: User, slug: str) -> Access | None:
    """Return the membership, or None alike for an unknown organization and for one that is not the user's."""
    member = Member.objects.select_related("organization").filter(user=user, organization__slug=slug).first()
    return Access(organization=member.organization, member=member, user=user) if member else None


ConsoleView = Callable[Concatenate[HttpRequest, Access, ...], HttpResponseBase]


def console_page(permission: Permission) -> Callable[[ConsoleView], Callable[..., HttpResponseBase]]:
    """Let members with `permission` in; strangers get a 404, which tells nothing, other members a 403.

    The view is called with an Access in place of the URL's `slug`: it never sees an organization of strangers.
    """

    def decorate(view: ConsoleView) -> Callable[..., HttpResponseBase]:
        @login_required
        @wraps(view)
        def enter(request: HttpRequest, slug: str, **arguments: Any) -> HttpResponseBase:
            assert isinstance(request.user, User)  # noqa: S101  login_required has seen to it.
            access = find_access(request.user, slug)
            if access is None:
                raise Http404
            if not access.may(permission):
                raise PermissionDenied
            request.access = access  # type: ignore[attr-defined]  # read by the layout's navigation
            if request.session.get(LAST_ORGANIZATION) != slug:
                request.session[LAST_ORGANIZATION] = slug
            response = view(request, access, **arguments)
            # A page shows one tenant's money: no cache between here and the browser may keep it.
            if not response.has_header("Cache-Control"):
                response["Cache-Control"] = "private, no-store"
            return response

        return enter

    return decorate
