"""When keys were used last, and what they cost this month: from the days of each key, whatever was used."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from accounts.models import Organization
from billing.bulk_rows import run_rows
from billing.usage.budgets import Spent, read_spent


@dataclass(frozen=True, slots=True)
class KeyActivity:
    """`used_at` is when the latest billed request came in, None when there was none; nano-dollars of this month."""

    used_at: datetime | None
    month_cost_nanos: int


def key_activity(organization: Organization, key_ids: Collection[int]) -> dict[int, KeyActivity]:
    """Return by key id what each of these keys did."""
    spent = read_spent(organization.pk, key_ids=key_ids) if key_ids else {}
    used = last_used(organization, key_ids)
    return {key_id: KeyActivity(at, spent.get(key_id, Spent()).paid_nanos[2]) for key_id, at in used.items()}


def last_used(organization: Organization, key_ids: Collection[int]) -> dict[int, datetime | None]:
    """Return when the latest billed request of each key came in, of days before times were kept only the day."""
    rows = run_rows(
        """SELECT wanted_key, (SELECT coalesce(last_admitted_at, timestamptz 'epoch' + admitted_day * interval '1 day')
                FROM billing_budgetday day
                WHERE day.organization_id = wanted_organization AND day.key_id = wanted_key
                ORDER BY admitted_day DESC LIMIT 1)
            FROM {rows}""",
        {"wanted_organization": "bigint", "wanted_key": "bigint"},
        [(organization.pk, key_id) for key_id in key_ids],
    )
    return dict(rows)
