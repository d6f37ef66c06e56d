"""What an organization decides about the budgets of members and end users.

Each change is written down with its actor, and reaches Redis like any other change of limits: it holds from the next
admission on.
"""

from datetime import UTC, datetime

from django.db import transaction
from django.utils import timezone

from accounts.models import Member, Organization, User
from billing.budgets.amounts import Amounts, BudgetError, Holder, TooManyBudgetsError
from billing.budgets.changes import lock_organization, note_change, note_owners_of_keys
from billing.budgets.overrides import end_open_override
from billing.budgets.spenders import END_USER, EVERYBODY, MEMBER, digest_of
from billing.budgets.spent import DAYS_KEPT, begin_to_count_end_users, begin_to_count_members
from billing.models import SpenderBudget
from billing.usage_event import MAX_END_USER_CHARS

MAX_SPENDER_BUDGETS = 1_000  # Of an organization.
SECONDS_PER_DAY = 86_400


def set_member_budget(
    organization: Organization, *, member: Member | None, amounts: Amounts, only_notifies: bool = False, actor: str
) -> SpenderBudget:
    """Give a member a budget, or with None each member who has none of their own. Raises BudgetError.

    It counts what the keys that the member owns have spent, from the beginning of the period on.
    """
    if member is not None and member.organization_id != organization.pk:
        raise BudgetError("This is no member of the organization.")
    user = member.user if member else None
    return _set_budget(organization, MEMBER, user, "", amounts, only_notifies, actor)


def set_end_user_budget(
    organization: Organization, *, end_user: str, amounts: Amounts, only_notifies: bool = False, actor: str
) -> SpenderBudget:
    """Give an end user a budget, or with "" each end user who has none of their own. Raises BudgetError.

    It counts what they have spent from the beginning of the period on, as far as attributed days know it.
    """
    if len(end_user) > MAX_END_USER_CHARS or not end_user.isprintable() or end_user != end_user.strip():
        raise BudgetError(
            f"The id of an end user has at most {MAX_END_USER_CHARS} characters. What cannot be printed, and spaces at"
            " its ends, are left out of what requests name."
        )
    return _set_budget(organization, END_USER, None, end_user, amounts, only_notifies, actor)


def remove_spender_budget(budget: SpenderBudget, *, actor: str) -> None:
    """Take a budget back, and with it what overrides it. Whoever had it has the default from then on."""
    with transaction.atomic():
        organization = lock_organization(budget.organization_id)
        SpenderBudget.objects.filter(pk=budget.pk).delete()
        end_open_override(organization, Holder(budget.scope, budget.spender), actor=actor)
        note_change(organization)


def find_spender_budget(organization_id: int, scope: str, spender: str) -> SpenderBudget | None:
    """Return the budget that a spender has: its own, or the default."""
    rows = SpenderBudget.objects.filter(
        organization=organization_id, scope=scope, spender__in=(spender, EVERYBODY)
    ).order_by("-spender")
    return rows.first()


def _begin_to_count(organization: Organization, scope: str) -> None:
    today = int(datetime.now(UTC).timestamp()) // SECONDS_PER_DAY
    if scope == MEMBER:
        begin_to_count_members(organization.pk, first_day=today - DAYS_KEPT)
        note_owners_of_keys(organization)
    else:
        begin_to_count_end_users(organization.pk, first_day=today - DAYS_KEPT)


def _set_budget(
    organization: Organization,
    scope: str,
    user: User | None,
    end_user: str,
    amounts: Amounts,
    only_notifies: bool,
    actor: str,
) -> SpenderBudget:
    """Set again as it is, it changes nothing, and says nothing of who asked last."""
    amounts.check()
    spender = str(user.pk) if user else digest_of(end_user)
    with transaction.atomic():
        locked = lock_organization(organization.pk, with_balance=True)
        budgets = SpenderBudget.objects.filter(organization=locked)
        kept = budgets.filter(scope=scope, spender=spender).first()
        if kept is not None and (Amounts.of(kept), kept.budgets_only_notify) == (amounts, only_notifies):
            return kept
        if not budgets.filter(scope=scope).exists():
            _begin_to_count(locked, scope)
        budget, is_new = SpenderBudget.objects.update_or_create(
            organization=locked,
            scope=scope,
            spender=spender,
            defaults={
                "user": user,
                "end_user": end_user,
                "budgets_only_notify": only_notifies,
                "changed_by": actor,
                "changed_at": timezone.now(),
                **amounts.as_fields(),
            },
        )
        if is_new and budgets.count() > MAX_SPENDER_BUDGETS:
            raise TooManyBudgetsError(f"There are {MAX_SPENDER_BUDGETS} budgets already. Remove one first.")
        note_change(locked)
    return budget
