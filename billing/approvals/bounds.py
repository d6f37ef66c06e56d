"""How much an operator may move alone: by role, within a day, and never certain things."""

from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Sum
from django.utils import timezone

from accounts.models import User
from accounts.staff_roles import SUPERUSER, staff_roles
from billing.models import Approval
from billing.money import parse_usd
from billing.pricing.cost import FACTOR_ONE_PPM

# What one operator moves alone is summed over this time: many small grants are one large one.
COUNTED = timedelta(hours=24)
# A discount or markup up to so much may be one person's; free of charge never is.
ALONE_FACTOR_PPM = (FACTOR_ONE_PPM * 9 // 10, FACTOR_ONE_PPM * 11 // 10)


def bound_nanos(user: User) -> int:
    """Return what the operator may move alone in a day: the largest of their roles, nothing without one."""
    roles: set[str] = {str(role) for role in staff_roles(user)}
    if user.is_active and user.is_superuser:
        roles.add(SUPERUSER)
    return max((parse_usd(settings.ALONE_USD[role]) for role in roles), default=0)


def moved_alone_nanos(user: User, *, now: datetime | None = None) -> int:
    """Return what the operator has moved alone in the last day."""
    since = (now or timezone.now()) - COUNTED
    rows = Approval.objects.filter(asked_by=user, asked_at__gt=since, state=Approval.State.APPLIED, decided_by=None)
    return rows.aggregate(total=Sum("amount_nanos"))["total"] or 0


def needs_second_person(user: User, approval: Approval) -> str:
    """Return why somebody else must approve, or "" when the operator may do it alone. Their row is locked meanwhile."""
    bound = bound_nanos(user)
    if not bound:
        return "Your role moves no money alone."
    if reason := _never_alone(approval):
        return reason
    left = bound - moved_alone_nanos(user)
    if approval.amount_nanos > left:
        return "It is more than your role moves alone in a day."
    return ""


def _never_alone(approval: Approval) -> str:
    terms = approval.terms
    if approval.kind == Approval.Kind.PRICE_FACTOR:
        if terms["factor_ppm"] == 0:
            return "A factor of 0 makes everything free."
        lowest, highest = ALONE_FACTOR_PPM
        if not lowest <= terms["factor_ppm"] <= highest:
            return "A factor so far from 1 is decided by two."
    if approval.kind == Approval.Kind.CREDIT_LIMIT and terms["to_nanos"] > parse_usd(settings.CREDIT_LIMIT_BOUND_USD):
        return f"A credit limit above {settings.CREDIT_LIMIT_BOUND_USD} USD is decided by two."
    return ""
