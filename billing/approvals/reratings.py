"""Re-ratings that may wait: their terms, what they say to the second person, and whether they still hold.

Terms keep what was counted when it was asked, so that a page shows it without pricing a window of requests again.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from billing.corrections.rerating import (
    Difference,
    ReratingError,
    ReratingPlan,
    check_plan,
    count_requests,
    plan_rerating,
)
from billing.models import PriceVersion
from billing.money import format_usd

MAX_ORGANIZATIONS_SHOWN = 50
# So many are priced while somebody waits for a page; the job that posts looks at any number, before it posts.
MAX_REQUESTS_ON_A_PAGE = 20_000


def moved_nanos(differences: Sequence[Difference]) -> int:
    """Return what counts against bounds: more and less do not cancel each other out."""
    return sum(abs(difference.difference_nanos) for difference in differences)


def rerating_terms(plan: ReratingPlan, differences: Sequence[Difference]) -> dict[str, Any]:
    """Return the terms of an approval: the window, the price, and the largest differences by organization."""
    largest = sorted(differences, key=lambda difference: -abs(difference.difference_nanos))
    return {
        "price_version_id": plan.price_version.pk,
        "begins": plan.begins.isoformat(),
        "ends": plan.ends.isoformat(),
        "model_id": plan.language_model.model_id,
        "organizations": len(differences),
        "requests": sum(difference.requests for difference in differences),
        "largest": [line_of(difference) for difference in largest[:MAX_ORGANIZATIONS_SHOWN]],
    }


def line_of(difference: Difference) -> str:
    """Return what changes for one organization, in a line."""
    return (
        f"{difference.organization.slug}: {difference.requests} requests,"
        f" {format_usd(difference.before_nanos)} -> {format_usd(difference.after_nanos)},"
        f" difference {format_usd(difference.difference_nanos)}"
    )


def describe_rerating(terms: Mapping[str, Any]) -> str:
    """Return what was asked for, in words."""
    return (
        f"{terms['requests']:,} requests of {terms['model_id']} from {terms['begins'][:10]} to {terms['ends'][:10]},"
        f" by price version {terms['price_version_id']}"
    )


def preview_rerating(terms: Mapping[str, Any]) -> list[str]:
    """Return the differences as they were counted when it was asked."""
    more = terms["organizations"] - len(terms["largest"])
    return [*terms["largest"], *([f"and {more:,} more organizations"] if more else [])]


def plan_of(terms: Mapping[str, Any]) -> ReratingPlan:
    """Return the plan that terms mean. Raises ReratingError when its price is gone."""
    version = PriceVersion.objects.select_related("language_model").filter(pk=terms["price_version_id"]).first()
    if version is None:
        raise ReratingError(f"No price version has the number {terms['price_version_id']}.")
    begins, ends = (datetime.fromisoformat(terms[name]) for name in ("begins", "ends"))
    return ReratingPlan(version.language_model, version, begins, ends)


def fits_on_a_page(plan: ReratingPlan) -> bool:
    """Say whether it is small enough to be priced while somebody waits."""
    return count_requests(plan, at_most=MAX_REQUESTS_ON_A_PAGE + 1) <= MAX_REQUESTS_ON_A_PAGE


def check_rerating(terms: Mapping[str, Any], amount_nanos: int) -> None:
    """Raise ReratingError when it cannot be done; where it is small, also when nothing or too much would move."""
    plan = plan_of(terms)
    check_plan(plan)
    if fits_on_a_page(plan):
        check_differences(plan_rerating(plan), amount_nanos)


def check_differences(differences: Sequence[Difference], amount_nanos: int) -> None:
    """Raise ReratingError when there is nothing to do any more, or more than was asked for."""
    moved = moved_nanos(differences)
    if not moved:
        raise ReratingError("Nothing differs any more.")
    if moved > amount_nanos:
        raise ReratingError(
            f"It would move {format_usd(moved)} USD by now, more than the {format_usd(amount_nanos)} USD asked for."
        )
