"""What was spent on requests admitted on one UTC day: what budgets by day, week and month are measured with.

A day is a number: whole UTC days since 1970-01-01. Weeks begin on Monday, months on the first. BudgetDay keeps a row
for each key, and one with WHOLE_ORGANIZATION for all keys of an organization together, so that no sum is wide.
"""

from collections.abc import Collection
from datetime import date

from billing.bulk_rows import run_rows
from billing.models import BudgetDay
from billing.stream import KEY_SCOPE, ORGANIZATION_SCOPE, PostedDay

WHOLE_ORGANIZATION = 0  # As a key id: no key has it.
ORDINAL_OF_EPOCH = date(1970, 1, 1).toordinal()
EPOCH_WEEKDAY = 3  # 1970-01-01 was a Thursday: three days after Monday.


def week_of(day: int) -> int:
    """Return the number of the week, from Monday, that a day lies in."""
    return (day + EPOCH_WEEKDAY) // 7


def month_of(day: int) -> int:
    """Return the number of the month that a day lies in: year x 12 + month - 1."""
    moment = date.fromordinal(ORDINAL_OF_EPOCH + day)
    return moment.year * 12 + moment.month - 1


def first_day_of_week(day: int) -> int:
    return week_of(day) * 7 - EPOCH_WEEKDAY


def first_day_of_month(day: int) -> int:
    return date.fromordinal(ORDINAL_OF_EPOCH + day).replace(day=1).toordinal() - ORDINAL_OF_EPOCH


def posted_nanos_by_day(*, organization_id: int, key_id: int = WHOLE_ORGANIZATION, first_day: int) -> dict[int, int]:
    """Return what an organization, or one key of it, spent by day of admission, from `first_day` on."""
    rows = BudgetDay.objects.filter(organization_id=organization_id, key_id=key_id, admitted_day__gte=first_day)
    return dict(rows.values_list("admitted_day", "cost_nanos"))


def read_posted_days(days: Collection[tuple[int, int, int]]) -> list[PostedDay]:
    """Return what is posted for each (organization_id, key_id, admitted_day); days without spend are left out."""
    rows = run_rows(
        """SELECT budget.organization_id, budget.key_id, budget.admitted_day, budget.cost_nanos
            FROM {rows} JOIN billing_budgetday budget USING (organization_id, key_id, admitted_day)
            ORDER BY 1, 2, 3""",
        {"organization_id": "bigint", "key_id": "bigint", "admitted_day": "integer"},
        list(days),
    )
    return [
        PostedDay(ORGANIZATION_SCOPE, organization_id, day, nanos)
        if key_id == WHOLE_ORGANIZATION
        else PostedDay(KEY_SCOPE, key_id, day, nanos)
        for organization_id, key_id, day, nanos in rows
    ]
