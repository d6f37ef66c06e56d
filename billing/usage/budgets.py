"""What was spent on requests admitted on one UTC day: what budgets by day, week and month are measured with.

Days are numbers, as in billing/days.py. BudgetDay keeps a row for each key, and one with WHOLE_ORGANIZATION for all
keys of an organization together, so that no sum is wide.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from django.db.models import F, Q, Sum

from billing.bulk_rows import run_rows
from billing.days import first_day_of_month, first_day_of_week
from billing.models import BudgetDay, UsageCorrection, UsageRecord
from billing.usage_stream import KEY_SCOPE, ORGANIZATION_SCOPE, PostedDay

WHOLE_ORGANIZATION = 0  # As a key id: no key has it.


def posted_nanos_by_day(*, organization_id: int, key_id: int = WHOLE_ORGANIZATION, first_day: int) -> dict[int, int]:
    """Return what an organization, or one key of it, spent by day of admission, from `first_day` on."""
    rows = BudgetDay.objects.filter(organization_id=organization_id, key_id=key_id, admitted_day__gte=first_day)
    return dict(rows.values_list("admitted_day", "cost_nanos"))


def posted_nanos_by_days(
    *, organization_ids: Collection[int], key_ids: Collection[int] = (WHOLE_ORGANIZATION,), first_day: int
) -> dict[tuple[int, int], dict[int, int]]:
    """The same of many at once, by organization and key."""
    rows = BudgetDay.objects.filter(
        organization_id__in=list(organization_ids), key_id__in=list(key_ids), admitted_day__gte=first_day
    )
    posted: dict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for organization_id, key_id, day, nanos in rows.values_list(
        "organization_id", "key_id", "admitted_day", "cost_nanos"
    ):
        posted[organization_id, key_id][day] = nanos
    return posted


def spent_nanos_by_day(*, organization_id: int, key_id: int = WHOLE_ORGANIZATION, first_day: int = 0) -> dict[int, int]:
    """Return what an organization, or one key of it, paid by day of admission: as budgets count, less what corrections
    of orphans gave back, which is not given back to a budget. One row for each day is read, whatever was used.
    """
    spent = Counter(posted_nanos_by_day(organization_id=organization_id, key_id=key_id, first_day=first_day))
    for of_key, day, nanos in _given_back(organization_id):
        if day >= first_day and key_id in (WHOLE_ORGANIZATION, of_key):
            spent[day] -= nanos
    return dict(spent)


@dataclass(frozen=True, slots=True)
class Spent:
    """What was spent since the day, the week and the month began, and ever; nano-dollars, of settled requests.

    As budgets count, to which nothing is given back; `given_back_nanos` says what was, by the same names.
    """

    daily_nanos: int = 0
    weekly_nanos: int = 0
    monthly_nanos: int = 0
    total_nanos: int = 0
    given_back_nanos: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def paid_nanos(self) -> tuple[int, int, int, int]:
        """What is paid for the same times: day, week, month, ever."""
        daily, weekly, monthly, total = self.given_back_nanos
        return (
            self.daily_nanos - daily,
            self.weekly_nanos - weekly,
            self.monthly_nanos - monthly,
            self.total_nanos - total,
        )


def read_spent(organization_id: int, *, key_ids: Collection[int] = (WHOLE_ORGANIZATION,)) -> dict[int, Spent]:
    """Return what keys of an organization have spent, all of them at once; keys without spend are left out."""
    today = (datetime.now(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    first_days = {"daily": today, "weekly": first_day_of_week(today), "monthly": first_day_of_month(today), "total": 0}
    rows = (
        BudgetDay.objects.filter(organization_id=organization_id, key_id__in=list(key_ids))
        .order_by()
        .values_list("key_id")
        .annotate(
            **{
                name: Sum("cost_nanos", filter=Q(admitted_day__gte=first_day), default=0)
                for name, first_day in first_days.items()
            }
        )
    )
    corrected = list(_given_back(organization_id))
    found = {}
    for key_id, *sums in rows:
        mine = [(day, nanos) for of_key, day, nanos in corrected if key_id in (WHOLE_ORGANIZATION, of_key)]
        back = [sum(nanos for day, nanos in mine if day >= first_day) for first_day in first_days.values()]
        daily, weekly, monthly, total = (int(nanos) for nanos in sums)
        found[key_id] = Spent(daily, weekly, monthly, total, (back[0], back[1], back[2], back[3]))
    return found


def _given_back(organization_id: int) -> Iterator[tuple[int, int, int]]:
    """Yield key, day and amount for each correction of an orphan that charges less than was charged first."""
    corrections = UsageCorrection.objects.filter(
        organization_id=organization_id, cost_after_nanos__lt=F("cost_before_nanos")
    )
    given_back = {correction.request_id: -correction.difference_nanos for correction in corrections}
    if given_back:
        records = UsageRecord.objects.filter(request_id__in=given_back)
        for request_id, key_id, day in records.values_list("request_id", "key_id", "admitted_day"):
            yield key_id, day, given_back[request_id]


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
        PostedDay(ORGANIZATION_SCOPE, organization_id, day, nanos, organization_id)
        if key_id == WHOLE_ORGANIZATION
        else PostedDay(KEY_SCOPE, key_id, day, nanos, organization_id)
        for organization_id, key_id, day, nanos in rows
    ]
