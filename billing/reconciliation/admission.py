"""Redis against Postgres, now: what admission enforces, where nothing is in flight."""

from itertools import groupby
from operator import attrgetter

from accounts.models import ApiKey, Organization
from billing.checks.admission import LOOKS, SECONDS_BETWEEN_LOOKS, compare_admission
from billing.reconciliation.breaks import Difference


def compare_with_redis(
    *, looks: int = LOOKS, seconds_between: float = SECONDS_BETWEEN_LOOKS
) -> tuple[int, list[Difference], str]:
    """Return how many organizations and keys were compared, a difference for each that differs, and what was left out.

    Raises AdmissionUnavailableError.
    """
    comparison = compare_admission(looks=looks, seconds_between=seconds_between)
    found = sorted(comparison.differences, key=attrgetter("holder"))
    differences = []
    for holder, group in groupby(found, key=attrgetter("holder")):
        parts = list(group)
        detail = f"{holder}: {'; '.join(part.text for part in parts)}."
        amount_nanos = sum(part.amount_nanos for part in parts)
        differences.append(Difference(holder, detail, amount_nanos, _organization_of(holder)))
    return comparison.holders, differences, comparison.note


def _organization_of(holder: str) -> int | None:
    scope, _, number = holder.partition(" ")
    if scope == "org":
        return Organization.objects.filter(pk=int(number)).values_list("pk", flat=True).first()
    if scope != "key":  # A member or an end user: the organization's id, a dash, its own.
        return _organization_of(f"org {number.partition('-')[0]}")
    return ApiKey.objects.filter(pk=int(number)).values_list("organization_id", flat=True).first()
