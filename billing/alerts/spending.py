"""What organizations and keys have spent, set against what they may: read for all of them with a few statements.

From budget days alone, which are few: a row for each day of use. So a round costs about the same however many requests
there were (docs/alerts.md has the measure).
"""

from collections.abc import Collection, Iterator
from dataclasses import replace
from itertools import starmap

from django.utils import timezone

from billing.alerts.judgement import BUDGET_BAND_PERCENT, USUAL_DAYS, Spending
from billing.bulk_rows import fetch_all
from billing.days import first_day_of_month, first_day_of_week
from billing.models import AlertSettings, BudgetOverride

MAX_SPENDERS_JUDGED = 1_000  # Of an organization's members, and of its end users.
LATEST_REQUESTS = 20  # By which is judged what the next request will hold.


def read_organizations(today: int) -> Iterator[Spending]:
    """Yield the spending of every active organization that used anything lately, or chose when to be told."""
    defaults = {field.attname: field.default for field in AlertSettings._meta.concrete_fields if field.has_default()}
    rows = fetch_all(
        """
        WITH spent AS (
            SELECT organization_id,
                coalesce(sum(cost_nanos) FILTER (WHERE admitted_day = %(today)s), 0)::bigint AS today,
                coalesce(sum(cost_nanos) FILTER (WHERE admitted_day >= %(week)s), 0)::bigint AS week,
                coalesce(sum(cost_nanos) FILTER (WHERE admitted_day >= %(month)s), 0)::bigint AS month,
                coalesce(sum(cost_nanos) FILTER (WHERE admitted_day BETWEEN %(usual)s AND %(today)s - 1), 0)::bigint
                    AS usual,
                count(*) FILTER (WHERE admitted_day BETWEEN %(usual)s AND %(today)s - 1 AND cost_nanos > 0) AS active
            FROM billing_budgetday
            WHERE key_id = 0 AND admitted_day BETWEEN least(%(month)s, %(week)s, %(usual)s) AND %(today)s
            GROUP BY organization_id
        )
        SELECT organization.id, 0, coalesce(today, 0), coalesce(week, 0), coalesce(month, 0), daily_budget_nanos,
            weekly_budget_nanos, monthly_budget_nanos, coalesce(budget_warning_percent, %(budget_warning_percent)s),
            coalesce(balance.posted_nanos, 0) + credit_limit_nanos, coalesce(usual, 0), coalesce(active, 0),
            chosen.low_balance_nanos, coalesce(spike_percent, %(spike_percent)s),
            coalesce(spike_minimum_nanos, %(spike_minimum_nanos)s), organization.budgets_only_notify
        FROM accounts_organization organization
        LEFT JOIN spent ON spent.organization_id = organization.id
        LEFT JOIN billing_organizationbalance balance ON balance.organization_id = organization.id
        LEFT JOIN billing_alertsettings chosen ON chosen.organization_id = organization.id
        WHERE organization.status = 'active' AND (spent.organization_id IS NOT NULL OR chosen.low_balance_nanos > 0
            OR EXISTS (SELECT 1 FROM billing_alert alert WHERE alert.organization_id = organization.id
                AND alert.cleared_at IS NULL AND alert.kind IN ('low_balance', 'balance_exhausted')))
        """,
        {**defaults, **_days(today), "usual": today - USUAL_DAYS},
    )
    overrides = _open_overrides(BudgetOverride.Scope.ORGANIZATION)
    return (
        _overridden(spending, overrides.get((spending.organization_id, ""))) for spending in starmap(Spending, rows)
    )


def read_budgeted_keys(today: int) -> Iterator[Spending]:
    """Yield the spending of every living key that has a budget."""
    default = AlertSettings._meta.get_field("budget_warning_percent").default
    rows = fetch_all(
        """
        SELECT key.organization_id, key.id,
            coalesce(sum(cost_nanos) FILTER (WHERE admitted_day = %(today)s), 0)::bigint,
            coalesce(sum(cost_nanos) FILTER (WHERE admitted_day >= %(week)s), 0)::bigint,
            coalesce(sum(cost_nanos) FILTER (WHERE admitted_day >= %(month)s), 0)::bigint,
            key.daily_budget_nanos, key.weekly_budget_nanos, key.monthly_budget_nanos,
            coalesce(min(budget_warning_percent), %(default)s), key.budgets_only_notify
        FROM accounts_apikey key JOIN accounts_organization organization ON organization.id = key.organization_id
        LEFT JOIN billing_alertsettings chosen ON chosen.organization_id = key.organization_id
        LEFT JOIN billing_budgetday spent ON spent.organization_id = key.organization_id AND spent.key_id = key.id
            AND admitted_day BETWEEN least(%(month)s, %(week)s) AND %(today)s
        WHERE organization.status = 'active' AND key.revoked_at IS NULL
            AND (key.expires_at IS NULL OR key.expires_at > now())
            AND coalesce(key.daily_budget_nanos, key.weekly_budget_nanos, key.monthly_budget_nanos) IS NOT NULL
        GROUP BY key.id
        """,
        {**_days(today), "default": default},
    )
    overrides = _open_overrides(BudgetOverride.Scope.KEY)
    for row in rows:
        spending = replace(Spending(*row[:-1]), only_notifies=row[-1])
        yield _overridden(spending, overrides.get((spending.organization_id, str(spending.key_id))))


def read_budgeted_spenders(today: int) -> Iterator[Spending]:
    """Yield the spending of members and end users who are near a budget of theirs, the nearest of each organization."""
    default = AlertSettings._meta.get_field("budget_warning_percent").default
    rows = fetch_all(
        """
        WITH spent AS (
            SELECT organization_id, scope, spender, max(end_user) AS end_user,
                coalesce(sum(cost_nanos) FILTER (WHERE admitted_day = %(today)s), 0)::bigint AS today,
                coalesce(sum(cost_nanos) FILTER (WHERE admitted_day >= %(week)s), 0)::bigint AS week,
                coalesce(sum(cost_nanos) FILTER (WHERE admitted_day >= %(month)s), 0)::bigint AS month
            FROM billing_spenderday WHERE admitted_day BETWEEN least(%(month)s, %(week)s) AND %(today)s
            GROUP BY organization_id, scope, spender
        ), set_against AS (
            SELECT spent.*, budget.budgets_only_notify, coalesce(budget_warning_percent, %(default)s) AS warning,
                coalesce(override.daily_budget_nanos, budget.daily_budget_nanos) AS daily,
                coalesce(override.weekly_budget_nanos, budget.weekly_budget_nanos) AS weekly,
                coalesce(override.monthly_budget_nanos, budget.monthly_budget_nanos) AS monthly
            FROM spent
            JOIN accounts_organization organization ON organization.id = spent.organization_id AND status = 'active'
            CROSS JOIN LATERAL (SELECT * FROM billing_spenderbudget kept
                WHERE kept.organization_id = spent.organization_id AND kept.scope = spent.scope
                    AND kept.spender IN (spent.spender, '') ORDER BY kept.spender DESC LIMIT 1) budget
            LEFT JOIN LATERAL (SELECT * FROM billing_budgetoverride kept
                WHERE kept.organization_id = spent.organization_id AND kept.scope = spent.scope
                    AND kept.holder IN (spent.spender, budget.spender) AND kept.ended_at IS NULL AND kept.until > now()
                ORDER BY kept.holder DESC LIMIT 1) override ON true
            LEFT JOIN billing_alertsettings chosen ON chosen.organization_id = spent.organization_id
        ), near AS (
            SELECT *, greatest(today / nullif(daily, 0)::numeric, week / nullif(weekly, 0)::numeric,
                month / nullif(monthly, 0)::numeric) AS part FROM set_against
        ), nearest AS (
            SELECT *, row_number() OVER (PARTITION BY organization_id, scope ORDER BY part DESC, spender) AS place
            FROM near WHERE part * 100 >= warning - %(band)s
        )
        SELECT organization_id, 0, today, week, month, daily, weekly, monthly, warning, budgets_only_notify, scope,
            spender, coalesce(person.email, end_user)
        FROM nearest LEFT JOIN accounts_user person ON scope = 'member' AND person.id::text = spender
        WHERE place <= %(most)s
        """,
        {**_days(today), "default": default, "band": BUDGET_BAND_PERCENT, "most": MAX_SPENDERS_JUDGED},
    )
    for row in rows:
        only_notifies, scope, spender, label = row[-4:]
        yield replace(
            Spending(*row[:-4]), only_notifies=only_notifies, scope=scope, spender=spender, spender_label=label
        )


def read_usual_holds(holders: Collection[tuple[int, int]]) -> dict[tuple[int, int], int]:
    """Return, by (organization, key or 0), the mean hold of its latest requests: what the next one may well need.

    Admission refuses what might not be covered, so spend stops short of a budget, and of nothing, by about this much.
    """
    if not holders:
        return {}
    rows = fetch_all(
        """
        SELECT holder.organization_id, holder.key_id, avg(latest.hold_nanos)::bigint
        FROM unnest(%s::bigint[], %s::bigint[]) AS holder(organization_id, key_id)
        CROSS JOIN LATERAL (
            SELECT hold_nanos, key_id FROM billing_usagerecord record
            WHERE record.organization_id = holder.organization_id
            ORDER BY request_id DESC LIMIT %s
        ) latest
        WHERE holder.key_id = 0 OR latest.key_id = holder.key_id
        GROUP BY 1, 2
        """,
        [[holder[0] for holder in holders], [holder[1] for holder in holders], LATEST_REQUESTS],
    )
    return {(organization_id, key_id): int(nanos) for organization_id, key_id, nanos in rows}


def _open_overrides(scope: str) -> dict[tuple[int, str], BudgetOverride]:
    rows = BudgetOverride.objects.filter(scope=scope, ended_at=None, until__gt=timezone.now())
    return {(override.organization_id, override.holder): override for override in rows}


def _overridden(spending: Spending, override: BudgetOverride | None) -> Spending:
    if override is None:
        return spending
    names = ("daily_budget_nanos", "weekly_budget_nanos", "monthly_budget_nanos")
    given = {name: getattr(override, name) for name in names if getattr(override, name) is not None}
    return replace(spending, **given)


def _days(today: int) -> dict[str, int]:
    return {"today": today, "week": first_day_of_week(today), "month": first_day_of_month(today)}
