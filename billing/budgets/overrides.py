"""Overrides: other amounts that stand in for a budget until a time, with who made them and why."""

from collections.abc import Collection
from datetime import datetime

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from accounts.models import ApiKey, Organization
from accounts.models.limits import Limits
from billing.budgets.amounts import (
    Amounts,
    BudgetError,
    Holder,
    NothingToOverrideError,
    TooManyBudgetsError,
)
from billing.budgets.changes import lock_organization, note_change, note_key_change
from billing.budgets.spenders import EVERYBODY
from billing.models import BudgetOverride, SpenderBudget

MAX_OPEN_OVERRIDES = 200  # Of an organization.
MAX_OVERRIDE_DAYS = 92
MAX_REASON_CHARS = 200
Scope = BudgetOverride.Scope


def make_override(
    organization: Organization, *, holder: Holder, amounts: Amounts, until: datetime, reason: str, actor: str
) -> BudgetOverride:
    """Let other amounts stand in for a budget until a time; an earlier override of it ends. Raises BudgetError.

    A period without an amount keeps its budget. Made again as it stands, it changes nothing.
    """
    amounts.check()
    reason = reason.strip()
    if not 0 < len(reason) <= MAX_REASON_CHARS:
        raise BudgetError(f"Say why, in at most {MAX_REASON_CHARS} characters.")
    now = timezone.now()
    if until <= now:
        raise BudgetError("This moment has passed.")
    if (until - now).days >= MAX_OVERRIDE_DAYS:
        raise BudgetError(f"An override lasts {MAX_OVERRIDE_DAYS} days at most. For longer, change the budget itself.")
    with transaction.atomic():
        locked = lock_organization(organization.pk)
        if not _has_budget(locked, holder):
            raise NothingToOverrideError("There is no budget that could be overridden.")
        stands = find_override(locked.pk, holder)
        if stands is not None and (Amounts.of(stands), stands.until, stands.reason) == (amounts, until, reason):
            return stands
        end_open_override(locked, holder, actor=actor)
        if open_overrides(locked).count() >= MAX_OPEN_OVERRIDES:
            raise TooManyBudgetsError(f"There are {MAX_OPEN_OVERRIDES} overrides already. End one first.")
        made = BudgetOverride.objects.create(
            organization=locked,
            scope=holder.scope,
            holder=holder.id,
            until=until,
            reason=reason,
            made_by=actor,
            **amounts.as_fields(),
        )
        _note(locked, holder)
    return made


def end_override(organization: Organization, *, holder: Holder, actor: str) -> bool:
    """End an override before its time; say whether there was one."""
    with transaction.atomic():
        locked = lock_organization(organization.pk)
        is_ended = end_open_override(locked, holder, actor=actor)
        if is_ended:
            _note(locked, holder)
    return is_ended


def end_open_override(organization: Organization, holder: Holder, *, actor: str) -> bool:
    """End the override of this holder, in the transaction of whoever tells admission; say whether it stood."""
    now = timezone.now()
    rows = BudgetOverride.objects.filter(organization=organization, scope=holder.scope, holder=holder.id, ended_at=None)
    stood = rows.filter(until__gt=now).exists()
    rows.update(ended_at=now, ended_by=actor)
    return stood


def open_overrides(organization: Organization) -> QuerySet[BudgetOverride]:
    """Return the overrides that stand now."""
    return BudgetOverride.objects.filter(organization=organization, ended_at=None, until__gt=timezone.now())


def overrides_of(organization: Organization, scope: str) -> dict[str, BudgetOverride]:
    """Return the overrides that stand now in a scope, by the id of their holder."""
    return {each.holder: each for each in open_overrides(organization).filter(scope=scope)}


def past_overrides(organization: Organization, holder: Holder, *, limit: int) -> list[BudgetOverride]:
    """Return the overrides of this holder that are over, the latest first."""
    rows = BudgetOverride.objects.filter(organization=organization, scope=holder.scope, holder=holder.id)
    return list(rows.filter(Q(until__lte=timezone.now()) | Q(ended_at__isnull=False)).order_by("-id")[:limit])


def find_override(organization_id: int, holder: Holder) -> BudgetOverride | None:
    """Return the override that stands now for exactly this holder."""
    rows = BudgetOverride.objects.filter(
        organization=organization_id, scope=holder.scope, holder=holder.id, ended_at=None, until__gt=timezone.now()
    )
    return rows.first()


def find_overrides(
    scope: str, organization_ids: Collection[int], ids: Collection[str] = (EVERYBODY,)
) -> dict[tuple[int, str], BudgetOverride]:
    """Return the overrides that stand now for many holders of one scope, by organization and id."""
    rows = BudgetOverride.objects.filter(
        organization__in=list(organization_ids),
        scope=scope,
        holder__in=list(ids),
        ended_at=None,
        until__gt=timezone.now(),
    )
    return {(row.organization_id, row.holder): row for row in rows}


def _has_budget(organization: Organization, holder: Holder) -> bool:
    if holder.scope == Scope.ORGANIZATION:
        return has_any_budget(organization)
    if holder.scope == Scope.KEY:
        key = ApiKey.objects.filter(organization=organization, pk=_number(holder.id), revoked_at=None).first()
        return key is not None and has_any_budget(key)
    ids = (holder.id, EVERYBODY)
    return SpenderBudget.objects.filter(organization=organization, scope=holder.scope, spender__in=ids).exists()


def has_any_budget(limits: Limits) -> bool:
    """Say whether an organization or key has a budget for any period."""
    budgets = (limits.daily_budget_nanos, limits.weekly_budget_nanos, limits.monthly_budget_nanos)
    return any(nanos is not None for nanos in budgets)


def _note(organization: Organization, holder: Holder) -> None:
    if holder.scope == Scope.KEY:
        note_key_change(ApiKey.objects.get(organization=organization, pk=_number(holder.id)))
    else:
        note_change(organization)


def _number(text: str) -> int:
    return int(text) if text.isdigit() and len(text) < 19 else 0
