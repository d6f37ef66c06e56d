"""Roll-ups by day, against the hours and the records that they are sums of."""

from collections.abc import Sequence

from billing.checks.books import Books, Outcome
from billing.checks.invariant import Check
from billing.checks.true_usage import TRUE_USAGE
from billing.models import AttributedDay

COUNTED = ("requests", "input_tokens", "output_tokens", "cache_write_tokens", "cache_read_tokens", "cost_nanos")
TIMED = ("timed_requests", "first_byte_ms", "duration_ms")
OF_DAYS = (*COUNTED, "upstream_cost_nanos", *TIMED)
OF_ATTRIBUTED = (*COUNTED, *TIMED)
PLACE = ("organization_id", "day", "end_user", "tag", "session", "key_id", "model_id")
OTHER = AttributedDay.OTHER


def attributed_records(where: str = "") -> str:
    """Return SQL that sums records by the row in which settlement has to have counted them.

    `where` narrows the records. Which row that is, billing/settlement/attributed_days.py says.
    """
    same_key = " AND ".join(f"{{0}}.{name} = named.{name}" for name in ("organization_id", "day", "key_id", "model_id"))
    sums = ", ".join(f"sum(named.{name}) AS {name}" for name in OF_ATTRIBUTED)
    return f"""
        SELECT named.organization_id, named.day, place.end_user, place.tag, place.session, named.key_id, named.model_id,
            {sums}
        FROM (SELECT usage.organization_id, (admitted_at AT TIME ZONE 'UTC')::date AS day, detail.end_user, detail.tag,
                detail.session, key_id, model_id, sum(requests) AS requests, sum(input_tokens) AS input_tokens,
                sum(output_tokens) AS output_tokens,
                sum(cache_write_5m_tokens + cache_write_1h_tokens) AS cache_write_tokens,
                sum(cache_read_tokens) AS cache_read_tokens, sum(cost_nanos) AS cost_nanos,
                count(first_byte_ms) AS timed_requests, coalesce(sum(first_byte_ms), 0) AS first_byte_ms,
                coalesce(sum(total_ms) FILTER (WHERE first_byte_ms IS NOT NULL), 0) AS duration_ms
            FROM ({TRUE_USAGE} {where}) usage JOIN billing_requestdetail detail USING (request_id)
            WHERE detail.is_attributed GROUP BY 1, 2, 3, 4, 5, 6, 7) named
        LEFT JOIN billing_attributedday exact ON {same_key.format("exact")} AND exact.end_user = named.end_user
            AND exact.tag = named.tag AND exact.session = named.session
        LEFT JOIN billing_attributedday coarse ON {same_key.format("coarse")} AND coarse.end_user = named.end_user
            AND coarse.tag = named.tag AND coarse.session = '{OTHER}'
        CROSS JOIN LATERAL (SELECT
            CASE WHEN exact.id IS NULL AND coarse.id IS NULL THEN '{OTHER}' ELSE named.end_user END AS end_user,
            CASE WHEN exact.id IS NULL AND coarse.id IS NULL THEN '{OTHER}' ELSE named.tag END AS tag,
            CASE WHEN exact.id IS NULL THEN '{OTHER}' ELSE named.session END AS session) place
        GROUP BY 1, 2, 3, 4, 5, 6, 7"""  # noqa: S608  Constants.


def differences(names: Sequence[str], given: str, counted: str) -> str:
    """Return SQL that says of two rows which columns differ, and how: "requests: 5, adds up to 6"."""
    rows = ", ".join(f"('{name.replace('_', ' ')}', {given}.{name}::text, {counted}.{name}::text)" for name in names)
    return f"""(SELECT string_agg(format('%s: %s, adds up to %s', name, coalesce(given, 'missing'),
            coalesce(counted, 'nothing')), '; ')
        FROM (VALUES {rows}) AS pair(name, given, counted) WHERE given IS DISTINCT FROM counted)"""  # noqa: S608


def attributed_days_sum_records(books: Books) -> Outcome:
    given, counted = (", ".join(f"{of}.{name}" for name in OF_ATTRIBUTED) for of in ("rollup", "records"))
    return books.judge(
        "SELECT count(*) FROM billing_attributedday WHERE ON_DATES(day)",
        f"""SELECT format('day %s of organization %s, end user %s, tag %s, session %s, key %s, %s: %s',
                {"day, organization_id, end_user, tag, session, key_id, model_id"},
                {differences(OF_ATTRIBUTED, "rollup", "records")})
            FROM (SELECT * FROM billing_attributedday WHERE ON_DATES(day)) rollup
            FULL JOIN ({attributed_records("WHERE ADMITTED(record.admitted_at)")}) records
                USING ({", ".join(PLACE)})
            WHERE ROW({given}) IS DISTINCT FROM ROW({counted}) ORDER BY 1""",  # noqa: S608  Constants.
    )


def days_sum_hours(books: Books) -> Outcome:
    given, counted = (", ".join(f"{of}.{name}" for name in OF_DAYS) for of in ("rollup", "hours"))
    return books.judge(
        "SELECT count(*) FROM billing_usageday WHERE ON_DATES(day)",
        f"""SELECT format('day %s of organization %s, key %s, %s: %s', day, organization_id, key_id, model_id,
                {differences(OF_DAYS, "rollup", "hours")})
            FROM (SELECT * FROM billing_usageday WHERE ON_DATES(day)) rollup
            FULL JOIN (SELECT organization_id, (hour AT TIME ZONE 'UTC')::date AS day, key_id, model_id,
                    {", ".join(f"sum({name}) AS {name}" for name in OF_DAYS)}
                FROM billing_usagehour WHERE ADMITTED(hour) GROUP BY 1, 2, 3, 4) hours
                USING (organization_id, day, key_id, model_id)
            WHERE ROW({given}) IS DISTINCT FROM ROW({counted}) ORDER BY 1""",  # noqa: S608  Constants.
    )


ROLL_UP_CHECKS = (
    Check("I4", "days are the sums of their hours", days_sum_hours),
    Check("I4", "days of end users, tags and sessions are the sums of their records", attributed_days_sum_records),
)
