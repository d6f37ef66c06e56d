"""Staff roles: which operator may see and do what in the admin and by commands. One table; docs/roles.md shows it.

A role is a Django group of its name. What it permits stands here and not in the database, so that no row can say more.
Superusers may do everything; who is staff without a role may do nothing but what was given to them by hand.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import AnonymousUser
from django.db.models import Q

from accounts.models import User


class StaffRole(StrEnum):
    SUPPORT = "support"
    FINANCE = "finance"
    OPERATIONS = "operations"


MAX_OPERATORS = 100
SUPERUSER = "superuser"  # No group: a mark of the login.

SUPPORT, FINANCE, OPERATIONS = StaffRole.SUPPORT, StaffRole.FINANCE, StaffRole.OPERATIONS
EVERYBODY = frozenset(StaffRole)

# Who looks at which table, and who does what. A permission that is in no row is the superusers' alone.
MAY_VIEW: dict[str, frozenset[StaffRole]] = {
    **dict.fromkeys(
        (
            "account.emailaddress",
            "accounts.organization",
            "accounts.member",
            "accounts.apikey",
            "accounts.user",
            "accounts.admissionchange",
            "billing.alert",
            "billing.alertsettings",
            "billing.approval",
            "billing.automatictopup",
            "billing.creditlot",
            "billing.creditlotentry",
            "billing.document",
            "billing.documentline",
            "billing.failedrequest",
            "billing.languagemodel",
            "billing.languagemodelalias",
            "billing.ledgeraccount",
            "billing.ledgerentry",
            "billing.ledgertransaction",
            "billing.organizationpricefactor",
            "billing.outgoingmail",
            "billing.paymentbreak",
            "billing.paymentdispute",
            "billing.paymentmovement",
            "billing.paymentrefund",
            "billing.paymentreversal",
            "billing.pricecomponent",
            "billing.priceversion",
            "billing.recurringcredit",
            "billing.redemption",
            "billing.redemptioncode",
            "billing.refusedrequest",
            "billing.route",
            "billing.topup",
            "billing.upstream",
            "billing.usagequarantine",
            "billing.usagerecord",
            "billing.webhookdelivery",
            "billing.webhookendpoint",
            "operations.jobrun",
        ),
        EVERYBODY,
    ),
    "accounts.auditentry": frozenset({FINANCE, OPERATIONS}),
    "billing.providerreport": frozenset({FINANCE, OPERATIONS}),
    "billing.providerreportline": frozenset({FINANCE, OPERATIONS}),
    "billing.reconciliationbreak": frozenset({FINANCE, OPERATIONS}),
    "billing.reconciliationrun": frozenset({FINANCE, OPERATIONS}),
}
MAY_DO: dict[str, frozenset[StaffRole]] = {
    "accounts.view_as_member": frozenset({SUPPORT}),
    "accounts.suspend_organization": frozenset({SUPPORT, FINANCE, OPERATIONS}),
    "accounts.add_organization": frozenset({OPERATIONS}),
    "accounts.change_organization": frozenset({OPERATIONS}),
    "accounts.add_member": frozenset({OPERATIONS}),
    "accounts.change_member": frozenset({OPERATIONS}),
    "accounts.delete_member": frozenset({OPERATIONS}),
    "accounts.change_apikey": frozenset({SUPPORT, OPERATIONS}),
    "accounts.change_user": frozenset({SUPPORT}),
    "billing.add_creditlot": frozenset({SUPPORT, FINANCE}),
    "billing.add_ledgertransaction": frozenset({SUPPORT, FINANCE}),
    "billing.adjust_balance": frozenset({FINANCE}),
    "billing.change_credit_limit": frozenset({FINANCE}),
    "billing.add_organizationpricefactor": frozenset({FINANCE}),
    "billing.change_topup": frozenset({FINANCE}),
    "billing.add_recurringcredit": frozenset({FINANCE}),
    "billing.change_recurringcredit": frozenset({FINANCE}),
    "billing.add_redemptioncode": frozenset({FINANCE}),
    "billing.change_redemptioncode": frozenset({SUPPORT, FINANCE}),
    "billing.change_approval": frozenset({FINANCE}),
    "billing.change_paymentbreak": frozenset({FINANCE}),
    "billing.change_reconciliationbreak": frozenset({FINANCE}),
    "billing.add_priceversion": frozenset({FINANCE, OPERATIONS}),
    "billing.change_priceversion": frozenset({FINANCE}),
    "billing.change_upstream": frozenset({OPERATIONS}),
    "billing.change_languagemodel": frozenset({OPERATIONS}),
    "billing.add_languagemodelalias": frozenset({OPERATIONS}),
    "billing.change_languagemodelalias": frozenset({OPERATIONS}),
    "billing.delete_languagemodelalias": frozenset({OPERATIONS}),
    "billing.add_route": frozenset({OPERATIONS}),
    "billing.change_route": frozenset({OPERATIONS}),
    "billing.delete_route": frozenset({OPERATIONS}),
    "billing.change_usagequarantine": frozenset({OPERATIONS}),
    "operations.run_job": frozenset({OPERATIONS}),
}


def permissions_of(role: StaffRole) -> frozenset[str]:
    """Return every permission of a role as Django writes it: `billing.view_topup`."""
    views = (_view(table) for table, roles in MAY_VIEW.items() if role in roles)
    return frozenset({*views, *(name for name, roles in MAY_DO.items() if role in roles)})


def operators_who_may(permission: str) -> list[User]:
    """Return the active operators with a permission such as `billing.change_approval`: by role, by hand, or all."""
    app, _, codename = permission.partition(".")
    by_hand = Q(user_permissions__content_type__app_label=app, user_permissions__codename=codename)
    by_role = Q(groups__name__in=[role for role in StaffRole if permission in permissions_of(role)])
    return _active_operators(by_role | by_hand | Q(is_superuser=True))


def operators_with(role: StaffRole) -> list[User]:
    """Return the active operators who have this role."""
    return _active_operators(Q(groups__name=role))


def _active_operators(who: Q) -> list[User]:
    return list(User.objects.filter(who, is_active=True, is_staff=True).order_by("pk").distinct()[:MAX_OPERATORS])


def staff_roles(user: User) -> frozenset[StaffRole]:
    """Return the roles of an operator, read once for this object. Whoever is no active staff has none."""
    if not (user.is_active and user.is_staff):
        return frozenset()
    known: frozenset[StaffRole] | None = getattr(user, "_staff_roles", None)
    if known is None:
        names = user.groups.filter(name__in=list(StaffRole)).values_list("name", flat=True)
        known = frozenset(StaffRole(name) for name in names)
        user._staff_roles = known  # type: ignore[attr-defined]  # as Django keeps permissions
    return known


class StaffRoleBackend(BaseBackend):
    """Gives operators what their roles permit."""

    def get_group_permissions(self, user_obj: Any, obj: Any = None) -> set[str]:
        if obj is not None or isinstance(user_obj, AnonymousUser):
            return set()
        return set(_union(permissions_of(role) for role in staff_roles(user_obj)))

    def has_module_perms(self, user_obj: Any, app_label: str) -> bool:
        """Say whether a role opens anything of this app, as the admin asks for its menu."""
        return any(name.startswith(f"{app_label}.") for name in self.get_group_permissions(user_obj))


def _view(table: str) -> str:
    app, _, name = table.partition(".")
    return f"{app}.view_{name}"


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
