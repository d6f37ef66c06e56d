"""How near everybody is to their limits: the figures of a page, or of an answer of the API. Reads only.

What is spent is what budgets compare: posted in Postgres, and beside it what Redis knows to be held or unsettled.
Amounts in nano-dollars.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from django.conf import settings
from django.db.models import Max, Q, Sum
from django.db.models.functions import Coalesce, Greatest

from accounts.models import ApiKey, Member, Organization
from accounts.models.limits import Limits
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.use import HolderUse, read_use
from billing.budgets.amounts import Holder
from billing.budgets.overrides import Scope, open_overrides
from billing.budgets.spenders import END_USER, EVERYBODY, MEMBER, Spender, digest_of
from billing.days import first_day_of_month, first_day_of_week
from billing.models import BudgetDay, BudgetOverride, SpenderBudget, SpenderDay
from billing.usage.budgets import WHOLE_ORGANIZATION

SECONDS_PER_DAY = 86_400
MAX_LISTED = 30  # Of keys, of members and of end users: the nearest.
PERIODS = ("day", "week", "month")
RATES = ("requests_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", "concurrent_requests")
BUDGETS = ("daily_budget_nanos", "weekly_budget_nanos", "monthly_budget_nanos")
LIMITS = (*RATES, *BUDGETS, "budgets_only_notify")
HAS_LIMITS = ~Q(**dict.fromkeys((*RATES, *BUDGETS)))  # Of keys: with any limit of their own.
Days = Mapping[int, int]


class BudgetUse(NamedTuple):
    """A budget of one period. `budget_nanos` is the one that holds now, None without one."""

    period: str
    spent_nanos: int
    budget_nanos: int | None
    is_overridden: bool = False

    @property
    def percent(self) -> int:
        """How much of it is used, rounded down; all of a budget of nothing."""
        if self.budget_nanos is None:
            return 0
        return self.spent_nanos * 100 // self.budget_nanos if self.budget_nanos else 100


class RateUse(NamedTuple):
    """A limit per minute, or of requests at the same time (`concurrent_requests`)."""

    kind: str
    used: int
    limit: int

    @property
    def percent(self) -> int:
        return self.used * 100 // self.limit


@dataclass(frozen=True, slots=True)
class Standing:
    """One holder with its limits. `budget_of` is its own budget, the default ("") or None: which row a spender has."""

    holder: Holder
    label: str
    budgets: list[BudgetUse]
    only_notifies: bool = False
    rates: list[RateUse] = field(default_factory=list)
    override: BudgetOverride | None = None
    has_default: bool = False
    is_erased: bool = False  # What a client called an end user is kept no longer than the organization wants.

    @property
    def nearest_percent(self) -> int:
        return max([*(use.percent for use in self.budgets), *(use.percent for use in self.rates)], default=0)

    @property
    def has_budget(self) -> bool:
        return any(use.budget_nanos is not None for use in self.budgets)


class StandingReader:
    """Reads an organization's standing. `is_current` is False where Redis did not say what is held and unsettled."""

    def __init__(self, organization: Organization) -> None:
        self.organization = organization
        self.today = int(datetime.now(UTC).timestamp()) // SECONDS_PER_DAY
        self.is_current = True
        self._first_days = (self.today, first_day_of_week(self.today), first_day_of_month(self.today))
        self._overrides = {Holder(each.scope, each.holder): each for each in open_overrides(organization)}

    def read_organization(self) -> Standing:
        """Return what holds for all keys together."""
        organization = self.organization
        rates = {
            "requests_per_minute": organization.requests_per_minute or settings.DEFAULT_REQUESTS_PER_MINUTE,
            "concurrent_requests": organization.concurrent_requests or settings.DEFAULT_CONCURRENT_REQUESTS,
        }
        use = self._use().get("org", HolderUse())
        posted = self._posted_by_key([WHOLE_ORGANIZATION])[WHOLE_ORGANIZATION]
        holder = Holder(Scope.ORGANIZATION)
        return self._of_limits(organization, holder, organization.name, posted, use, rates)

    def read_keys(self, keys: Collection[ApiKey]) -> list[Standing]:
        """Return the standing of these keys, as far as they have limits, the nearest to one of them first."""
        limited = [key for key in keys if _is_limited(key)]
        ids = [key.pk for key in limited]
        rated = [key.pk for key in limited if any(getattr(key, name) is not None for name in RATES)]
        posted, uses = self._posted_by_key(ids), self._use(key_ids=ids, rated_key_ids=rated)
        found = [
            self._of_limits(
                key, Holder(Scope.KEY, str(key.pk)), key.name, posted[key.pk], uses.get(f"key:{key.pk}", HolderUse())
            )
            for key in limited
        ]
        return _nearest(found)

    def read_members(self, members: Collection[Member]) -> list[Standing]:
        """Return those of these members who have a budget, or the default, the nearest to theirs first."""
        return self._read_spenders(MEMBER, {str(member.user_id): member.user.email for member in members})

    def read_end_users(self, *, end_user: str = "") -> list[Standing]:
        """Return the end users nearest to their budget, and those with one of their own; or only the one named."""
        if end_user:
            return self._read_spenders(END_USER, {digest_of(end_user): end_user})
        budgets = SpenderBudget.objects.filter(organization=self.organization, scope=END_USER)
        named = {budget.spender: budget.end_user for budget in budgets if budget.spender}
        default = next((budget for budget in budgets if not budget.spender), None)
        if default is not None:
            named |= self._nearest_to_default(default)
        return self._read_spenders(END_USER, named)

    def read_defaults(self) -> dict[str, SpenderBudget]:
        """Return the budgets of everybody without one of their own, by scope."""
        rows = SpenderBudget.objects.filter(organization=self.organization, spender=EVERYBODY)
        return {budget.scope: budget for budget in rows}

    def _read_spenders(self, scope: str, labels: Mapping[str, str]) -> list[Standing]:
        organization_id = self.organization.pk
        rows = SpenderBudget.objects.filter(
            organization=self.organization, scope=scope, spender__in=[*labels, EVERYBODY]
        )
        budgets = {budget.spender: budget for budget in rows}
        ids = [spender for spender in labels if spender in budgets or EVERYBODY in budgets]
        posted: dict[str, dict[int, int]] = {spender: {} for spender in ids}
        days = SpenderDay.objects.filter(
            organization_id=organization_id, scope=scope, spender__in=ids, admitted_day__gte=min(self._first_days)
        )
        for spender, day, nanos in days.values_list("spender", "admitted_day", "cost_nanos"):
            posted[spender][day] = nanos
        uses = self._use(spenders=[Spender(organization_id, scope, spender) for spender in ids])
        found = []
        for spender in ids:
            budget, holder = budgets.get(spender, budgets.get(EVERYBODY)), Holder(scope, spender)
            assert budget is not None  # noqa: S101  So `ids` were chosen.
            use = uses.get(Spender(organization_id, scope, spender).name, HolderUse())
            override = self._overrides.get(holder) or self._overrides.get(Holder(scope, budget.spender))
            found.append(
                Standing(
                    holder,
                    labels[spender] or f"(erased: {spender[:8]})",
                    self._budgets(budget, override, posted[spender], use),
                    only_notifies=budget.budgets_only_notify,
                    override=override,
                    has_default=budget.spender == EVERYBODY,
                    is_erased=not labels[spender],
                )
            )
        return _nearest(found)

    def _nearest_to_default(self, default: SpenderBudget) -> dict[str, str]:
        """Return the end users who have spent most of the default, by their digests."""
        amounts = (default.daily_budget_nanos, default.weekly_budget_nanos, default.monthly_budget_nanos)
        parts = [
            Coalesce(Sum("cost_nanos", filter=Q(admitted_day__gte=first_day)), 0) * 1.0 / budget
            for first_day, budget in zip(self._first_days, amounts, strict=True)
            if budget
        ] or [Sum("cost_nanos") * 1.0]
        days = SpenderDay.objects.filter(
            organization_id=self.organization.pk, scope=END_USER, admitted_day__gte=min(self._first_days)
        ).order_by()
        part = Greatest(*parts) if len(parts) > 1 else parts[0]
        spent = days.values("spender").annotate(label=Max("end_user"), part=part).order_by("-part", "spender")
        return dict(spent.values_list("spender", "label")[:MAX_LISTED])

    def _of_limits(
        self, limits: Limits, holder: Holder, label: str, posted: Days, use: HolderUse, rates: Mapping[str, int] = {}
    ) -> Standing:
        override = self._overrides.get(holder)
        given = {
            "requests_per_minute": limits.requests_per_minute,
            "input_tokens_per_minute": limits.input_tokens_per_minute,
            "output_tokens_per_minute": limits.output_tokens_per_minute,
            "concurrent_requests": limits.concurrent_requests,
            **rates,
        }
        return Standing(
            holder,
            label,
            self._budgets(limits, override, posted, use),
            only_notifies=limits.budgets_only_notify,
            rates=[RateUse(kind, _used(kind, limit, use), limit) for kind, limit in given.items() if limit],
            override=override,
        )

    def _budgets(
        self, limits: Limits | SpenderBudget, override: BudgetOverride | None, posted: Days, use: HolderUse
    ) -> list[BudgetUse]:
        found = []
        for period, first_day, name in zip(PERIODS, self._first_days, BUDGETS, strict=True):
            other = getattr(override, name) if override is not None else None
            budget = getattr(limits, name) if other is None else other
            days = {day for day in (*posted, *use.posted, *use.waiting) if first_day <= day <= self.today}
            spent = sum(max(posted.get(day, 0), use.posted.get(day, 0)) + use.waiting.get(day, 0) for day in days)
            found.append(BudgetUse(period, spent, budget, other is not None))
        return found

    def _posted_by_key(self, key_ids: Iterable[int]) -> dict[int, dict[int, int]]:
        posted: dict[int, dict[int, int]] = {key_id: {} for key_id in key_ids}
        rows = BudgetDay.objects.filter(
            organization_id=self.organization.pk, key_id__in=list(posted), admitted_day__gte=min(self._first_days)
        )
        for key_id, day, nanos in rows.values_list("key_id", "admitted_day", "cost_nanos"):
            posted[key_id][day] = nanos
        return posted

    def _use(
        self, *, key_ids: Iterable[int] = (), rated_key_ids: Collection[int] = (), spenders: Iterable[Spender] = ()
    ) -> dict[str, HolderUse]:
        try:
            return read_use(self.organization.pk, key_ids=key_ids, rated_key_ids=rated_key_ids, spenders=spenders)
        except AdmissionUnavailableError:
            self.is_current = False
            return {}


def _is_limited(key: ApiKey) -> bool:
    return any(getattr(key, name) is not None for name in (*RATES, *BUDGETS))


def _used(kind: str, limit: int, use: HolderUse) -> int:
    if kind == "concurrent_requests":
        return use.open_requests
    return -(-limit * use.taken_ppm.get(kind.split("_")[0], 0) // 1_000_000)


def _nearest(standings: Iterable[Standing]) -> list[Standing]:
    return sorted(standings, key=lambda each: (-each.nearest_percent, each.label.casefold()))[:MAX_LISTED]
