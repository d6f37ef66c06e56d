"""Whose budget a page is about, found by the words in its address."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from accounts.models import ApiKey, Member, Organization
from accounts.models.limits import Limits
from billing.budgets.amounts import Holder
from billing.budgets.overrides import Scope, find_override, has_any_budget, past_overrides
from billing.models import BudgetOverride, SpenderBudget, SpenderDay

ALL = "all"
SCOPES = {"organization": Scope.ORGANIZATION, "key": Scope.KEY, "member": Scope.MEMBER, "end-user": Scope.END_USER}
MAX_ID_DIGITS = 18
PAST_OVERRIDES_SHOWN = 10


@dataclass(frozen=True, slots=True)
class BudgetPage:
    """One holder of a budget. `budget` is the row of a member or an end user, or of a default, where there is one."""

    scope: str  # As the address has it.
    id: str
    holder: Holder
    label: str
    key: ApiKey | None = None
    member: Member | None = None
    end_user: str = ""
    organization: Organization | None = None
    budget: SpenderBudget | None = None
    default: SpenderBudget | None = None
    override: BudgetOverride | None = None
    past: Sequence[BudgetOverride] = field(default_factory=list)

    @property
    def limits(self) -> Limits | SpenderBudget | None:
        """What holds now, as far as it is this holder's own."""
        return self.organization or self.key or self.budget

    @property
    def is_default(self) -> bool:
        return self.holder.scope in (Scope.MEMBER, Scope.END_USER) and not self.holder.id

    @property
    def can_be_overridden(self) -> bool:
        if self.organization or self.key:
            limits = self.organization or self.key
            return limits is not None and has_any_budget(limits)
        return self.budget is not None or self.default is not None


def find_budget_page(organization: Organization, scope: str, holder_id: str) -> BudgetPage | None:
    """Return whose budget it is; None where the organization has no such key, member or end user."""
    if scope not in SCOPES:
        return None
    kind = SCOPES[scope]
    if kind == Scope.ORGANIZATION:
        return _page(organization, scope, holder_id, "", organization.name) if holder_id == ALL else None
    if kind == Scope.KEY:
        key = organization.keys.filter(pk=_number(holder_id), revoked_at=None, is_management=False).first()
        return _page(organization, scope, holder_id, holder_id, f"the key “{key.name}”", key=key) if key else None
    if holder_id == ALL:
        label = "every other member" if kind == Scope.MEMBER else "every other end user"
        return _page(organization, scope, ALL, "", label)
    if kind == Scope.MEMBER:
        member = organization.members.select_related("user").filter(user=_number(holder_id)).first()
        return _page(organization, scope, holder_id, holder_id, member.user.email, member=member) if member else None
    end_user = _end_user_text(organization, holder_id)
    return _page(organization, scope, holder_id, holder_id, f"“{end_user}”", end_user=end_user) if end_user else None


def _page(
    organization: Organization,
    scope: str,
    address_id: str,
    holder_id: str,
    label: str,
    *,
    key: ApiKey | None = None,
    member: Member | None = None,
    end_user: str = "",
) -> BudgetPage:
    kind = SCOPES[scope]
    holder = Holder(kind, holder_id)
    rows = SpenderBudget.objects.filter(organization=organization, scope=kind, spender__in=(holder_id, ""))
    budgets = {row.spender: row for row in rows} if kind in (Scope.MEMBER, Scope.END_USER) else {}
    return BudgetPage(
        scope,
        address_id,
        holder,
        label,
        key=key,
        member=member,
        end_user=end_user,
        organization=organization if kind == Scope.ORGANIZATION else None,
        budget=budgets.get(holder_id),
        default=budgets.get("") if holder_id else None,
        override=find_override(organization.pk, holder),
        past=past_overrides(organization, holder, limit=PAST_OVERRIDES_SHOWN),
    )


def _end_user_text(organization: Organization, digest: str) -> str:
    """Return the id of an end user who has a budget or has spent anything lately, by its digest."""
    budget = SpenderBudget.objects.filter(organization=organization, scope=Scope.END_USER, spender=digest).first()
    if budget is not None:
        return budget.end_user
    days = SpenderDay.objects.filter(organization_id=organization.pk, scope=Scope.END_USER, spender=digest)
    return days.exclude(end_user="").values_list("end_user", flat=True).first() or ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS else 0
