"""Roll-ups against records, of one day: what pages and budgets read, against what was billed."""

from datetime import date, datetime, timedelta

from billing.bulk_rows import fetch_all
from billing.checks.roll_ups import OF_ATTRIBUTED, PLACE, attributed_records
from billing.checks.true_usage import TRUE_USAGE
from billing.days import ORDINAL_OF_EPOCH
from billing.reconciliation.breaks import Difference
from billing.request_id import first_id_at
from billing.usage.report import start_of_day

# A request id is made by a gateway's clock, its admission stamped by Redis': so far apart may they be.
CLOCK_SKEW = timedelta(days=1)


def compare_roll_ups(day: date) -> tuple[int, list[Difference]]:
    """Return how many sums were compared, and which differ. One statement for each: settlement may go on meanwhile."""
    hours, budgets, attributed = _hours(day), _budget_days(day), _attributed_days(day)
    return len(hours) + len(budgets) + len(attributed), [
        *(
            Difference(
                f"hours:{day}:{organization_id}",
                f"The hours of organization {organization_id} on {day} sum to {_in_words(rolled_up)}; its records to"
                f" {_in_words(counted)}.",
                rolled_up[2] - counted[2],
                organization_id,
            )
            for organization_id, rolled_up, counted in hours
            if rolled_up != counted
        ),
        *(
            Difference(
                f"budget_day:{day}:{organization_id}:{key_id}",
                f"{rolled_up} nano-dollars count for the budgets of {f'key {key_id}' if key_id else 'all keys'} of"
                f" organization {organization_id} on {day}; its records sum to {counted}.",
                rolled_up - counted,
                organization_id,
            )
            for organization_id, key_id, rolled_up, counted in budgets
            if rolled_up != counted
        ),
        *(
            Difference(
                f"attributed_day:{day}:{organization_id}",
                f"{wrong:,} of {rows:,} sums by end user, tag and session of organization {organization_id} on {day}"
                " differ from those of its records.",
                difference,
                organization_id,
            )
            for organization_id, rows, wrong, difference in attributed
            if wrong
        ),
    ]


Sums = tuple[int, int, int]


def _in_words(sums: Sums) -> str:
    requests, tokens, nanos = sums
    return f"{requests:,} requests, {tokens:,} tokens and {nanos:,} nano-dollars"


def _hours(day: date) -> list[tuple[int, Sums, Sums]]:
    """Return, by organization, requests, tokens and cost as the hours say, and as the records do."""
    tokens = "input_tokens + output_tokens + cache_read_tokens"
    rows = fetch_all(
        f"""SELECT organization_id, coalesce(hours.requests, 0), coalesce(hours.tokens, 0), coalesce(hours.cost, 0),
                coalesce(records.requests, 0), coalesce(records.tokens, 0), coalesce(records.cost, 0)
            FROM (SELECT organization_id, sum(requests) AS requests, sum({tokens} + cache_write_tokens) AS tokens,
                    sum(cost_nanos) AS cost
                FROM billing_usagehour WHERE hour >= %(begins)s AND hour < %(ends)s GROUP BY 1) hours
            FULL JOIN (SELECT organization_id, sum(requests) AS requests,
                    sum({tokens} + cache_write_5m_tokens + cache_write_1h_tokens) AS tokens, sum(cost_nanos) AS cost
                FROM ({TRUE_USAGE} WHERE record.request_id >= %(first)s AND record.request_id < %(last)s) usage
                WHERE admitted_at >= %(begins)s AND admitted_at < %(ends)s GROUP BY 1) records USING (organization_id)
            ORDER BY 1""",  # noqa: S608  Constants.
        _window(day),
    )
    return [(row[0], (int(row[1]), int(row[2]), int(row[3])), (int(row[4]), int(row[5]), int(row[6]))) for row in rows]


def _budget_days(day: date) -> list[tuple[int, int, int, int]]:
    """Return (organization, key or 0, nano-dollars that count for budgets, nano-dollars of the records)."""
    rows = fetch_all(
        """SELECT organization_id, key_id, coalesce(budget.cost_nanos, 0), coalesce(records.cost_nanos, 0)
            FROM (SELECT organization_id, key_id, cost_nanos FROM billing_budgetday WHERE admitted_day = %(number)s)
            budget FULL JOIN (SELECT record.organization_id, key.key_id, sum(record.cost_nanos + greatest(
            coalesce(correction.cost_after_nanos - correction.cost_before_nanos, 0), 0)) AS cost_nanos FROM
            billing_usagerecord record LEFT JOIN billing_usagecorrection correction USING (request_id) CROSS JOIN
            LATERAL (VALUES (record.key_id), (0)) AS key (key_id) WHERE record.request_id >= %(first)s AND
            record.request_id < %(last)s AND admitted_day = %(number)s GROUP BY 1, 2) records USING (organization_id,
            key_id)
            ORDER BY 1, 2""",
        {**_window(day), "number": day.toordinal() - ORDINAL_OF_EPOCH},
    )
    return [(int(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in rows]


def _attributed_days(day: date) -> list[tuple[int, int, int, int]]:
    """Return, by organization, how many sums there are, how many of them differ, and by how many nano-dollars."""
    given, counted = (", ".join(f"{of}.{name}" for name in OF_ATTRIBUTED) for of in ("rollup", "records"))
    narrowed = (
        "WHERE record.request_id >= %(first)s AND record.request_id < %(last)s"
        " AND record.admitted_at >= %(begins)s AND record.admitted_at < %(ends)s"
    )
    rows = fetch_all(
        f"""SELECT organization_id, count(*), count(*) FILTER (WHERE ROW({given}) IS DISTINCT FROM ROW({counted})),
                coalesce(sum(coalesce(rollup.cost_nanos, 0) - coalesce(records.cost_nanos, 0)), 0)
            FROM (SELECT * FROM billing_attributedday WHERE day = (%(begins)s AT TIME ZONE 'UTC')::date) rollup
            FULL JOIN ({attributed_records(narrowed)}) records USING ({", ".join(PLACE)})
            GROUP BY 1 ORDER BY 1""",  # noqa: S608  Constants.
        _window(day),
    )
    return [(int(row[0]), int(row[1]), int(row[2]), int(row[3])) for row in rows]


def _window(day: date) -> dict[str, object]:
    begins: datetime = start_of_day(day)
    ends = begins + timedelta(days=1)
    return {
        "begins": begins,
        "ends": ends,
        "first": first_id_at(begins - CLOCK_SKEW),
        "last": first_id_at(ends + CLOCK_SKEW),
    }
