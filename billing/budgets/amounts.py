"""What a budget says: amounts by period, and whose it is. Pure."""

from typing import NamedTuple, Protocol

from billing.budgets.spenders import EVERYBODY

MAX_BUDGET_NANOS = 10**17  # A hundred million dollars.


class BudgetError(ValueError):
    """The change makes no sense; the text says why, for people."""


class TooManyBudgetsError(BudgetError):
    """The organization has as many budgets, or overrides, as it can have."""


class NothingToOverrideError(BudgetError):
    """There is no budget that could be overridden."""


class HasAmounts(Protocol):
    """An organization, a key, a budget or an override."""

    daily_budget_nanos: int | None
    weekly_budget_nanos: int | None
    monthly_budget_nanos: int | None


class Amounts(NamedTuple):
    """What may be spent in a UTC day, week from Monday and month, in nano-dollars; None: no budget for that period."""

    daily_nanos: int | None = None
    weekly_nanos: int | None = None
    monthly_nanos: int | None = None

    @classmethod
    def of(cls, row: "HasAmounts") -> "Amounts":
        """Return what a row with these columns says."""
        return cls(row.daily_budget_nanos, row.weekly_budget_nanos, row.monthly_budget_nanos)

    def with_others(self, others: "Amounts") -> "Amounts":
        """Return these as an override changes them: a period without another amount keeps its own."""
        return Amounts(*(own if other is None else other for own, other in zip(self, others, strict=True)))

    def as_fields(self) -> dict[str, int | None]:
        """Return them by the names of columns."""
        return {
            "daily_budget_nanos": self.daily_nanos,
            "weekly_budget_nanos": self.weekly_nanos,
            "monthly_budget_nanos": self.monthly_nanos,
        }

    def check(self) -> None:
        """Raise BudgetError where nothing is set, or what no budget can be."""
        given = [nanos for nanos in self if nanos is not None]
        if not given:
            raise BudgetError("Set an amount for at least one of day, week and month.")
        if min(given) < 0 or max(given) > MAX_BUDGET_NANOS:
            raise BudgetError("No budget can be as large as this, or below zero.")


class Holder(NamedTuple):
    """Whose budget it is. `scope` is one of BudgetOverride.Scope; `id` is a key's id, the user's id of a member, or the
    digest of an end user, and "" for the organization and for a default.
    """

    scope: str
    id: str = EVERYBODY
