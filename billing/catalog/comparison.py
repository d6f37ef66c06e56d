"""A price version beside the one that it replaces, amount by amount, and beside what upstreams charge us."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from django.utils import timezone

from billing.catalog.price_versions import price_table
from billing.models import PriceVersion
from billing.pricing.cost import COMPONENTS, PriceTable, tier_starts


@dataclass(frozen=True, slots=True)
class ComparedPrice:
    """One component for prompts of a size, in pico-dollars per unit. None: it has no price there."""

    component: str
    prompt_tokens_from: int
    before_picos: int | None
    after_picos: int | None

    @property
    def change_percent(self) -> float | None:
        """By how much it rises or falls; None where one of both is missing or nothing."""
        if not self.before_picos or self.after_picos is None:
            return None
        return float(Fraction(self.after_picos - self.before_picos, self.before_picos) * 100)

    @property
    def is_same(self) -> bool:
        return self.before_picos == self.after_picos


def find_replaced(version: PriceVersion) -> PriceVersion | None:
    """Return the version of the same seller that is in force until this one is; None for the first."""
    begins = version.effective_from if version.approved_at else max(version.effective_from, timezone.now())
    earlier = PriceVersion.objects.filter(
        language_model=version.language_model_id,
        upstream=version.upstream_id,
        approved_at__isnull=False,
        effective_from__lte=begins,
    )
    return earlier.exclude(pk=version.pk).order_by("-effective_from", "-id").first()


def compare(before: PriceVersion | None, after: PriceVersion) -> Sequence[ComparedPrice]:
    """Return every component that one of both has, by tier."""
    old, new = (price_table(version) if version else None for version in (before, after))
    starts = sorted({start for table in (old, new) if table for start in tier_starts(table)})
    rows = [
        ComparedPrice(component, start, _picos(old, component, start), _picos(new, component, start))
        for start in starts
        for component in COMPONENTS
    ]
    return [row for row in rows if (row.before_picos, row.after_picos) != (None, None)]


def sold_below_cost(version: PriceVersion) -> list[str]:
    """Return, for a sale price, what would be sold for less than an upstream that serves it charges us now."""
    if version.upstream_id is not None:
        return []
    sale = price_table(version)
    seen: set[int | None] = set()
    found = []
    costs = PriceVersion.objects.filter(
        language_model=version.language_model_id,
        upstream__is_enabled=True,
        approved_at__isnull=False,
        effective_from__lte=max(version.effective_from, timezone.now()),
    )
    for cost in costs.select_related("upstream").order_by("-effective_from", "-id"):
        if cost.upstream_id in seen:
            continue
        seen.add(cost.upstream_id)
        table = price_table(cost)
        found += [
            f"{component} is sold below what {cost.upstream} charges"
            for component in COMPONENTS
            if (_picos(sale, component, 0) or 0) < (_picos(table, component, 0) or 0)
        ]
    return found


def _picos(table: PriceTable | None, component: str, start: int) -> int | None:
    if table is None or not table.has_price(component):
        return None
    return table.picos_per_unit(component, prompt_tokens=start)
