"""What members and end users have spent by day: the sums that settlement keeps for organizations with such budgets.

From the first budget for members, or for end users, on, all of them are counted, with what they have spent before: by
the days of their keys, and as far as attributed days tell end users apart. Amounts in nano-dollars, days as in
billing/days.py.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import NamedTuple, Protocol

from django.db.models import Q, Sum

from billing.budgets.spenders import DIGEST_BYTES, END_USER, EVERYBODY, MEMBER, Spender, digest_of
from billing.bulk_rows import fetch_all, run_rows
from billing.days import first_day_of_month, first_day_of_week
from billing.models import AttributedDay, SpenderDay
from billing.usage_event import MAX_END_USER_CHARS
from billing.usage_stream import PostedDay

DAYS_KEPT = 40  # A month, and a week for whoever looks back; Redis keeps less.
MAX_FORGOTTEN_AT_ONCE = 20_000


class Spent(Protocol):
    """What of a usage event says who spent."""

    organization_id: int
    key_id: int
    end_user: str
    admitted_day: int


class SpenderOnDay(NamedTuple):
    spender: Spender
    day: int


class SpenderDirectory:
    """Says whom the events of a batch count for. One statement, and a second where members have budgets."""

    def __init__(self, events: Collection[Spent]) -> None:
        self._scopes = budgeted_scopes({event.organization_id for event in events})
        keys = {event.key_id for event in events if MEMBER in self._scopes.get(event.organization_id, ())}
        self._owners = _owners_of(keys) if keys else {}
        self.end_users: dict[Spender, str] = {}

    def spenders_of(self, event: Spent) -> list[SpenderOnDay]:
        scopes = self._scopes.get(event.organization_id)
        if not scopes:
            return []
        found = []
        if MEMBER in scopes and (owner := self._owners.get(event.key_id)):
            found.append(Spender(event.organization_id, MEMBER, str(owner)))
        if END_USER in scopes and event.end_user:
            # Admission knew the text whole or cut, and what was stored is no longer: both have the same beginning.
            text = event.end_user[:MAX_END_USER_CHARS]
            spender = Spender(event.organization_id, END_USER, digest_of(text))
            self.end_users[spender] = text
            found.append(spender)
        return [SpenderOnDay(spender, event.admitted_day) for spender in found]


def budgeted_scopes(organization_ids: Collection[int]) -> dict[int, set[str]]:
    """Return which of members and end users have budgets, by organization; those without any are left out."""
    rows = fetch_all(
        "SELECT DISTINCT organization_id, scope FROM billing_spenderbudget WHERE organization_id = ANY(%s::bigint[])",
        [list(organization_ids)],
    )
    scopes: dict[int, set[str]] = defaultdict(set)
    for organization_id, scope in rows:
        scopes[organization_id].add(scope)
    return dict(scopes)


def add_to_spender_days(costs: Iterable[tuple[Spent, int]]) -> None:
    """Add costs to the days of those who spent them. To be called under the locks of the organizations' balances."""
    given = [(event, nanos) for event, nanos in costs if nanos > 0]
    directory = SpenderDirectory([event for event, _ in given])
    sums: dict[SpenderOnDay, int] = defaultdict(int)
    for event, nanos in given:
        for each in directory.spenders_of(event):
            sums[each] += nanos
    _write(sums, directory.end_users)


def begin_to_count_members(organization_id: int, *, first_day: int) -> None:
    """Take over what members have spent since `first_day` by the days of their keys. Under the lock of the balance."""
    fetch_all(
        """INSERT INTO billing_spenderday AS kept
                (organization_id, scope, spender, admitted_day, cost_nanos, end_user)
            SELECT key.organization_id, %(scope)s, key.owner_id::text, admitted_day, sum(cost_nanos), ''
            FROM billing_budgetday spent
            JOIN accounts_apikey key ON key.organization_id = spent.organization_id AND key.id = spent.key_id
            WHERE spent.organization_id = %(organization_id)s AND admitted_day >= %(first_day)s
                AND key.owner_id IS NOT NULL
            GROUP BY key.organization_id, key.owner_id, admitted_day
            ON CONFLICT (organization_id, scope, spender, admitted_day) DO UPDATE
            SET cost_nanos = greatest(kept.cost_nanos, excluded.cost_nanos)""",
        {"organization_id": organization_id, "scope": MEMBER, "first_day": first_day},
    )


def begin_to_count_end_users(organization_id: int, *, first_day: int) -> None:
    """Take over what end users have spent since `first_day` by attributed days. Under the lock of the balance."""
    fetch_all(
        """INSERT INTO billing_spenderday AS kept
                (organization_id, scope, spender, admitted_day, cost_nanos, end_user)
            SELECT organization_id, %(scope)s, left(encode(sha256(convert_to(end_user, 'UTF8')), 'hex'), %(digits)s),
                day - date '1970-01-01', sum(cost_nanos), end_user
            FROM billing_attributedday
            WHERE organization_id = %(organization_id)s AND day >= date '1970-01-01' + %(first_day)s
                AND end_user NOT IN ('', %(other)s)
            GROUP BY organization_id, end_user, day
            ON CONFLICT (organization_id, scope, spender, admitted_day) DO UPDATE
            SET cost_nanos = greatest(kept.cost_nanos, excluded.cost_nanos)""",
        {
            "organization_id": organization_id,
            "scope": END_USER,
            "first_day": first_day,
            "digits": 2 * DIGEST_BYTES,
            "other": AttributedDay.OTHER,
        },
    )


def spent_by_day(spender: Spender, *, first_day: int) -> dict[int, int]:
    """Return what a spender spent by day of admission, from `first_day` on."""
    rows = SpenderDay.objects.filter(
        organization_id=spender.organization_id, scope=spender.scope, spender=spender.id, admitted_day__gte=first_day
    )
    return dict(rows.values_list("admitted_day", "cost_nanos"))


def spent_in_periods(organization_id: int, scope: str, spenders: Collection[str]) -> dict[str, tuple[int, int, int]]:
    """Return what spenders have spent since the day, the week and the month began; who spent nothing is left out."""
    today = (datetime.now(UTC) - datetime(1970, 1, 1, tzinfo=UTC)).days
    firsts = {"day": today, "week": first_day_of_week(today), "month": first_day_of_month(today)}
    days = SpenderDay.objects.filter(organization_id=organization_id, scope=scope, spender__in=list(spenders))
    sums = {name: Sum("cost_nanos", filter=Q(admitted_day__gte=first), default=0) for name, first in firsts.items()}
    rows = days.filter(admitted_day__gte=min(firsts.values())).order_by().values_list("spender").annotate(**sums)
    return {spender: (int(day), int(week), int(month)) for spender, day, week, month in rows}


def read_posted_spender_days(events: Collection[Spent]) -> list[PostedDay]:
    """Return what is posted in all for the spenders of these events on the days of the events."""
    directory = SpenderDirectory(events)
    wanted = {each for event in events for each in directory.spenders_of(event)}
    rows = run_rows(
        """SELECT spent.organization_id, spent.scope, spent.spender, spent.admitted_day, spent.cost_nanos
            FROM {rows} JOIN billing_spenderday spent USING (organization_id, scope, spender, admitted_day)
            ORDER BY 1, 2, 3, 4""",
        {"organization_id": "bigint", "scope": "text", "spender": "text", "admitted_day": "integer"},
        [(*each.spender, each.day) for each in wanted],
    )
    return [
        PostedDay(*Spender(organization_id, scope, spender).name_parts, day, nanos, organization_id)
        for organization_id, scope, spender, day, nanos in rows
    ]


def forget_old_spender_days(*, today: int) -> int:
    """Delete some of the days that no budget reaches any more, and return how many those were."""
    rows = fetch_all(
        """WITH old AS (SELECT id FROM billing_spenderday WHERE admitted_day < %s LIMIT %s),
            gone AS (DELETE FROM billing_spenderday USING old WHERE billing_spenderday.id = old.id RETURNING 1)
            SELECT count(*) FROM gone""",
        [today - DAYS_KEPT, MAX_FORGOTTEN_AT_ONCE],
    )
    return int(rows[0][0])


def _write(sums: Mapping[SpenderOnDay, int], end_users: Mapping[Spender, str]) -> None:
    run_rows(
        """INSERT INTO billing_spenderday AS kept (organization_id, scope, spender, admitted_day, cost_nanos, end_user)
            SELECT * FROM {rows} ORDER BY 1, 2, 3, 4
            ON CONFLICT (organization_id, scope, spender, admitted_day) DO UPDATE
            SET cost_nanos = kept.cost_nanos + excluded.cost_nanos""",
        {
            "organization_id": "bigint",
            "scope": "text",
            "spender": "text",
            "admitted_day": "integer",
            "cost_nanos": "bigint",
            "end_user": "text",
        },
        [(*each.spender, each.day, nanos, end_users.get(each.spender, EVERYBODY)) for each, nanos in sums.items()],
    )


def _owners_of(key_ids: Collection[int]) -> dict[int, int]:
    rows = fetch_all(
        "SELECT id, owner_id FROM accounts_apikey WHERE id = ANY(%s) AND owner_id IS NOT NULL",
        [sorted(key_ids)],
    )
    return dict(rows)
