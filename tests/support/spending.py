"""What organizations spent, as the roll-ups say it: a row for each day, without the requests behind it."""

from datetime import UTC, datetime
from typing import Any

from accounts.models import Organization
from billing.alerts.book import raise_alert
from billing.models import Alert, BudgetDay

USD = 1_000_000_000
SECONDS_PER_DAY = 86_400


def today() -> int:
    return int(datetime.now(UTC).timestamp()) // SECONDS_PER_DAY


def spend(organization: Organization, nanos: int, *, day: int | None = None, key_id: int = 0) -> None:
    """Say that so much was spent on a day, by the organization as a whole or by one key of it."""
    row, _ = BudgetDay.objects.get_or_create(
        organization_id=organization.pk, key_id=key_id, admitted_day=today() if day is None else day
    )
    row.cost_nanos += nanos
    row.save()


def usual_days(organization: Organization, nanos_per_day: int, *, days: int = 8) -> None:
    """Say that so much was spent on each of the days before today."""
    for number in range(1, days + 1):
        spend(organization, nanos_per_day, day=today() - number)


def open_kinds(organization: Organization) -> list[str]:
    return sorted(Alert.objects.filter(organization=organization, cleared_at=None).values_list("kind", flat=True))


def raise_some_alert(organization: Organization, *, subject: str = "", **values: Any) -> Alert:
    """Raise an alert that no look at balances clears."""
    raise_alert(organization, Alert.Kind.PAYMENT_FAILED, subject=subject, details={"reason": "declined"}, **values)
    return Alert.objects.get(organization=organization, subject=subject, cleared_at=None)
