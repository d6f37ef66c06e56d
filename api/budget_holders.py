"""Whose budget an address names: a member, an end user, or everybody who has none of their own."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Q, QuerySet
from django.http import Http404
from rest_framework.exceptions import ValidationError

from accounts.access import Permission
from accounts.models import Member
from api.budget_fields import show_budgets
from api.errors import ConflictError
from api.fields import find_row
from api.management import Acting
from billing.budgets.amounts import BudgetError, Holder, NothingToOverrideError, TooManyBudgetsError
from billing.budgets.overrides import overrides_of
from billing.budgets.spenders import DIGEST_BYTES, END_USER, EVERYBODY, MEMBER, digest_of
from billing.budgets.spent import spent_in_periods
from billing.models import BudgetOverride, SpenderBudget, SpenderDay

DEFAULT = "default"  # In place of an id: everybody who has no budget of their own.
MEMBER_PREFIX, END_USER_PREFIX = "member_", "enduser_"
END_USER_ID = re.compile(rf"{END_USER_PREFIX}([0-9a-f]{{{2 * DIGEST_BYTES}}})")
NOBODY = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Spending:
    """One whom a budget may be of: `text` is what requests name an end user by, "" where only the id is known."""

    holder: Holder
    member: Member | None = None
    text: str = ""

    @property
    def is_default(self) -> bool:
        return self.holder.id == EVERYBODY


def find_member(acting: Acting, text: str) -> Spending:
    """Return the member with this id, or all without a budget of their own. Raises Http404."""
    if text == DEFAULT:
        return Spending(Holder(MEMBER))
    member = find_row(members_seen(acting), MEMBER_PREFIX, text)
    return Spending(Holder(MEMBER, str(member.user_id)), member=member)


def find_end_user(acting: Acting, text: str) -> Spending:
    """Return the end user whom requests name so, or who has this id; whoever it is, they need not be known."""
    if text == DEFAULT:
        return Spending(Holder(END_USER))
    found = END_USER_ID.fullmatch(text)
    if found is None:
        return Spending(Holder(END_USER, digest_of(text)), text=text)
    return Spending(Holder(END_USER, found[1]), text=_known_text(acting, found[1]))


def members_seen(acting: Acting) -> QuerySet[Member]:
    """Return the members whose budgets the acting key sees: all, or the one whose key it is."""
    members = acting.organization.members.select_related("user")
    if acting.may(Permission.MANAGE_MEMBERS):
        return members
    return members.filter(user=acting.person) if acting.person else members.none()


def budgets_seen(acting: Acting, scope: str) -> QuerySet[SpenderBudget]:
    """Return the budgets of a scope that the acting key sees, with the default."""
    rows = SpenderBudget.objects.filter(organization=acting.organization, scope=scope)
    return rows.filter(Q(user=None) | Q(user__in=members_seen(acting).values("user"))) if scope == MEMBER else rows


def find_budget(acting: Acting, spending: Spending) -> SpenderBudget:
    """Return the budget of exactly this spender. Raises Http404 where they have none of their own."""
    budget = budgets_seen(acting, spending.holder.scope).filter(spender=spending.holder.id).first()
    if budget is None:
        raise Http404
    return budget


def show_spender_budgets(acting: Acting, budgets: Sequence[SpenderBudget], scope: str) -> list[dict[str, Any]]:
    """Return budgets as the API shows them, in as many queries for one as for a page of them."""
    spenders = [budget.spender for budget in budgets if budget.spender]
    spent = spent_in_periods(acting.organization.pk, scope, spenders)
    overrides = overrides_of(acting.organization, scope)
    members = acting.organization.members.filter(user__in=[budget.user_id for budget in budgets if budget.user_id])
    by_user = {member.user_id: member for member in members.select_related("user")} if scope == MEMBER else {}
    shown = []
    for budget in budgets:
        spending = Spending(Holder(scope, budget.spender), by_user.get(budget.user_id or 0), budget.end_user)
        used = spent.get(budget.spender, NOBODY) if budget.spender else None
        shown.append(_show(spending, budget, used, overrides.get(budget.spender)))
    return shown


def show_budget_in_force(acting: Acting, spending: Spending) -> dict[str, Any]:
    """Return the budget that holds for one spender: their own, or the default. Raises Http404 where there is none."""
    scope, spender = spending.holder
    rows = {row.spender: row for row in budgets_seen(acting, scope).filter(spender__in=(spender, EVERYBODY))}
    budget = rows.get(spender) or rows.get(EVERYBODY)
    if budget is None:
        raise Http404
    used = spent_in_periods(acting.organization.pk, scope, [spender]).get(spender, NOBODY) if spender else None
    overrides = overrides_of(acting.organization, scope)
    return _show(spending, budget, used, overrides.get(spender) or overrides.get(budget.spender))


def refuse(error: BudgetError) -> Exception:
    """Return the answer to a change that the domain refused."""
    if isinstance(error, TooManyBudgetsError):
        return ConflictError(str(error), code="too_many_budgets")
    if isinstance(error, NothingToOverrideError):
        return ConflictError(str(error), code="no_budget_to_override")
    return ValidationError(str(error))


def _show(
    spending: Spending, budget: SpenderBudget, used: tuple[int, int, int] | None, override: BudgetOverride | None
) -> dict[str, Any]:
    return {
        **_show_holder(spending),
        "is_default": budget.spender == EVERYBODY,
        **show_budgets(budget, used, override),
        "changed_by": budget.changed_by,
        "changed_at": budget.changed_at,
    }


def _show_holder(spending: Spending) -> dict[str, Any]:
    if spending.holder.scope == END_USER:
        shown_id = DEFAULT if spending.is_default else f"{END_USER_PREFIX}{spending.holder.id}"
        return {"id": shown_id, "end_user": spending.text or None}
    if spending.member is None:
        return {"id": DEFAULT, "email": None}
    return {"id": f"{MEMBER_PREFIX}{spending.member.pk}", "email": spending.member.user.email}


def _known_text(acting: Acting, digest: str) -> str:
    """Return what requests name an end user by, as far as a budget or what they spent lately says it."""
    kept = SpenderBudget.objects.filter(organization=acting.organization, scope=END_USER, spender=digest).first()
    if kept is not None:
        return kept.end_user
    days = SpenderDay.objects.filter(organization_id=acting.organization.pk, scope=END_USER, spender=digest)
    return days.exclude(end_user="").values_list("end_user", flat=True).first() or ""
