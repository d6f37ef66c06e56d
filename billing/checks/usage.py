"""Usage records: one terminal state for each request, one debit for each record, rated as recorded, rolled up."""

from billing.catalog.price_versions import price_table
from billing.checks.books import MAX_BREAKS_LISTED, Books, Outcome
from billing.checks.invariant import Check
from billing.checks.rating import NOT_RATED_RIGHT
from billing.checks.true_usage import TRUE_USAGE
from billing.models import PriceVersion
from billing.money import say_usd
from billing.pricing.cost import MissingPriceError, PriceTable, PricingError, Usage, cost_nanos

RECORDS = "SELECT count(*) FROM billing_usagerecord record WHERE SETTLED(record)"


def requests_end_once(books: Books) -> Outcome:
    return books.judge(
        "SELECT count(*) FROM billing_failedrequest",
        """SELECT format('request %s of organization %s is recorded as billed and as failed',
                failed.request_id, failed.organization_id)
            FROM billing_failedrequest failed JOIN billing_usagerecord record USING (request_id)
            ORDER BY failed.request_id""",
    )


def failures_are_kept(books: Books) -> Outcome:
    """Postgres counts the failed requests of each organization and day as they come: none is lost or passed on."""
    return books.judge(
        "SELECT count(*) FROM billing_failedrequest",
        """SELECT format('organization %s had %s failed requests on day %s, and %s are there', organization_id,
                coalesce(counted.requests, 0), admitted_day, coalesce(found.requests, 0))
            FROM billing_failedday counted
            FULL JOIN (SELECT organization_id, floor(extract(epoch FROM admitted_at) / 86400)::int AS admitted_day,
                    count(*) AS requests FROM billing_failedrequest GROUP BY 1, 2) found
                USING (organization_id, admitted_day)
            WHERE coalesce(counted.requests, 0) <> coalesce(found.requests, 0) ORDER BY 1""",
    )


def quarantine_is_empty(books: Books) -> Outcome:
    return books.judge(
        "SELECT count(*) FROM billing_usagequarantine",
        """SELECT format('quarantine %s: event %s/%s of organization %s waits since %s: %s',
                id, shard, stream_id, coalesce(organization_id::text, 'unknown'), created_at, left(reason, 200))
            FROM billing_usagequarantine WHERE resolved_at IS NULL ORDER BY id""",
    )


def records_have_one_debit(books: Books) -> Outcome:
    return books.judge(
        RECORDS,
        """SELECT format('usage %s of organization %s cost %s nanos and has no debit',
                request_id, organization_id, cost_nanos)
            FROM billing_usagerecord record
            WHERE cost_nanos <> 0 AND SETTLED(record) AND NOT EXISTS (SELECT 1 FROM billing_ledgertransaction ledger
                WHERE ledger.id = record.ledger_transaction_id AND ledger.kind = 'usage' AND POSTED(ledger.id))
            ORDER BY request_id""",
        """SELECT format('usage %s cost nothing and names transaction %s', request_id, ledger_transaction_id)
            FROM billing_usagerecord
            WHERE cost_nanos = 0 AND ledger_transaction_id IS NOT NULL AND POSTED(ledger_transaction_id)
            ORDER BY request_id""",
        """SELECT format('transaction %s debits %s nanos; its usage cost %s', ledger.id, coalesce(debits.nanos, 0),
                coalesce(records.nanos, 0))
            FROM billing_ledgertransaction ledger
            LEFT JOIN (SELECT entry.transaction_id, -sum(entry.amount_nanos) AS nanos
                FROM billing_ledgerentry entry JOIN billing_ledgeraccount account ON account.id = entry.account_id
                WHERE account.organization_id IS NOT NULL AND POSTED(entry.transaction_id) GROUP BY 1) debits
                ON debits.transaction_id = ledger.id
            LEFT JOIN (SELECT ledger_transaction_id, sum(cost_nanos) AS nanos FROM billing_usagerecord
                WHERE ledger_transaction_id IS NOT NULL AND POSTED(ledger_transaction_id) GROUP BY 1) records
                ON records.ledger_transaction_id = ledger.id
            WHERE ledger.kind = 'usage' AND POSTED(ledger.id)
              AND coalesce(debits.nanos, 0) <> coalesce(records.nanos, 0) ORDER BY ledger.id""",
    )


def records_are_priced_by_their_models_price(books: Books) -> Outcome:
    """The price of a record is an approved sale price of its model that was in force when it was admitted.

    A day is allowed for clocks that differ and for catalogs that a gateway has not read again yet.
    """
    return books.judge(
        RECORDS,
        """SELECT format('usage %s (%s alike) of model %s is rated by price version %s, %s', request_id, alike,
                used.language_model_id, price_version_id, CASE
                    WHEN version.id IS NULL THEN 'which does not exist'
                    WHEN version.language_model_id <> used.language_model_id THEN 'the price of another model'
                    WHEN version.upstream_id IS NOT NULL THEN 'what an upstream charges'
                    WHEN version.approved_at IS NULL THEN 'a draft'
                    WHEN version.approved_by = version.created_by THEN 'which its drafter approved'
                    WHEN version.effective_from > first_admitted + interval '1 day' THEN 'which begins later'
                    ELSE 'which was replaced before' END)
            FROM (SELECT price_version_id, language_model_id, min(request_id::text) AS request_id, count(*) AS alike,
                    min(admitted_at) AS first_admitted, max(admitted_at) AS last_admitted
                FROM billing_usagerecord record WHERE SETTLED(record) GROUP BY 1, 2) used
            LEFT JOIN billing_priceversion version ON version.id = used.price_version_id
            WHERE version.id IS NULL OR version.language_model_id <> used.language_model_id
               OR version.upstream_id IS NOT NULL OR version.approved_at IS NULL
               OR version.approved_by = version.created_by
               OR version.effective_from > first_admitted + interval '1 day'
               OR EXISTS (SELECT 1 FROM billing_priceversion later
                    WHERE later.language_model_id = version.language_model_id AND later.upstream_id IS NULL
                      AND later.approved_at IS NOT NULL AND later.effective_from > version.effective_from
                      AND later.effective_from + interval '1 day' < last_admitted)
            ORDER BY request_id""",
        """SELECT format('usage %s (%s alike) of organization %s has the factor %s, which it never had', request_id,
                alike, used.organization_id, used.factor_ppm)
            FROM (SELECT organization_id, factor_ppm, min(request_id::text) AS request_id, count(*) AS alike
                FROM billing_usagerecord record WHERE factor_ppm <> 1000000 AND SETTLED(record) GROUP BY 1, 2) used
            WHERE NOT EXISTS (SELECT 1 FROM billing_organizationpricefactor factor
                WHERE factor.organization_id = used.organization_id AND factor.factor_ppm = used.factor_ppm)
            ORDER BY request_id""",
        """SELECT format('usage %s (%s alike) is of model %s, which is called %s now', request_id, alike, used.model_id,
                model.model_id)
            FROM (SELECT language_model_id, model_id, min(request_id::text) AS request_id, count(*) AS alike
                FROM billing_usagerecord record WHERE SETTLED(record) GROUP BY 1, 2) used
            JOIN billing_languagemodel model ON model.id = used.language_model_id
            WHERE model.model_id <> used.model_id ORDER BY request_id""",
    )


def price_factors_change_no_past(books: Books) -> Outcome:
    """A factor begins no earlier than it was written down, and what it was in force for has it.

    A day is allowed, as with prices; of two factors that hold at once either does.
    """
    return books.judge(
        "SELECT count(*) FROM billing_organizationpricefactor",
        """SELECT format('price factor %s of organization %s begins %s, and was written down %s', id, organization_id,
                effective_from, created_at)
            FROM billing_organizationpricefactor WHERE effective_from < created_at - interval '1 minute' ORDER BY id""",
        """SELECT format('usage of organization %s with the factor %s, admitted %s, falls into the time of price factor'
                ' %s', used.organization_id, used.factor_ppm, used.admitted_day, factor.id)
            FROM billing_organizationpricefactor factor
            JOIN (SELECT organization_id, factor_ppm, admitted_day FROM billing_usagerecord record
                WHERE organization_id IN (SELECT organization_id FROM billing_organizationpricefactor)
                  AND SETTLED(record) GROUP BY 1, 2, 3) used
                ON used.organization_id = factor.organization_id AND used.factor_ppm <> factor.factor_ppm
            WHERE factor.effective_from < timestamptz 'epoch' + (used.admitted_day - 1) * interval '1 day'
              AND (factor.effective_to IS NULL
                OR factor.effective_to > timestamptz 'epoch' + (used.admitted_day + 2) * interval '1 day')
              AND NOT EXISTS (SELECT 1 FROM billing_organizationpricefactor other
                WHERE other.organization_id = used.organization_id AND other.factor_ppm = used.factor_ppm
                  AND other.effective_from < timestamptz 'epoch' + (used.admitted_day + 1) * interval '1 day'
                  AND (other.effective_to IS NULL
                    OR other.effective_to > timestamptz 'epoch' + (used.admitted_day - 1) * interval '1 day'))
            ORDER BY used.admitted_day""",
    )


def records_are_of_one_organization_and_day(books: Books) -> Outcome:
    return books.judge(
        RECORDS,
        """SELECT format('usage %s (%s alike) of organization %s is by key %s of organization %s', request_id, alike,
                used.organization_id, used.key_id, key.organization_id)
            FROM (SELECT organization_id, key_id, min(request_id::text) AS request_id, count(*) AS alike
                FROM billing_usagerecord record WHERE SETTLED(record) GROUP BY 1, 2) used
            JOIN accounts_apikey key ON key.id = used.key_id
            WHERE key.organization_id <> used.organization_id ORDER BY request_id""",
        """SELECT format('usage %s was admitted %s, and counts for day %s', request_id, admitted_at, admitted_day)
            FROM billing_usagerecord record
            WHERE SETTLED(record) AND abs(extract(epoch FROM admitted_at) / 86400 - 0.5 - admitted_day) > 1.5
            ORDER BY request_id""",
    )


def records_rate_as_recorded(books: Books) -> Outcome:
    """Recompute each cost from the price version and the counts, by the program that bills.

    Postgres rates first, by the same rule; only what it does not find right is rated again here.
    """
    tables = {
        version.pk: price_table(version)
        for version in PriceVersion.objects.filter(upstream=None).prefetch_related("components")
    }
    breaks: list[str] = []
    for version_id, factor_ppm, recorded, request_id, *counts in books.stream(NOT_RATED_RIGHT):
        rated = _rate(tables.get(version_id), Usage(*counts), factor_ppm)
        if rated != recorded:
            breaks.append(
                f"usage {request_id} cost {say_usd(recorded)}; rated by price version {version_id} it is"
                f" {rated if isinstance(rated, str) else say_usd(rated)}"
            )
            if len(breaks) == MAX_BREAKS_LISTED:
                break
    return Outcome(books.count(RECORDS), breaks)


def _rate(table: PriceTable | None, usage: Usage, factor_ppm: int) -> int | str:
    if table is None:
        return "unknown, for there is no such price version"
    try:
        return cost_nanos(usage, table, factor_ppm)
    except MissingPriceError as error:
        if not usage.images and not usage.web_searches:
            return str(error)
        # What an upstream did unasked, and no price exists for, is not charged.
        return _rate(table, usage._replace(images=0, web_searches=0), factor_ppm)
    except PricingError as error:
        return str(error)


def reports_are_possible(books: Books) -> Outcome:
    """What providers reported in the last seven days is possible. Records never change: such a break ends by age."""
    return books.judge(
        RECORDS,
        """SELECT format('usage %s of organization %s, upstream %s: %s',
                request_id, organization_id, upstream, coalesce(attempts -> -1 ->> 'problem', 'more than is possible'))
            FROM billing_usagerecord record WHERE usage_source = 'bounded' AND SETTLED(record)
                AND settled_at > now() - interval '7 days' ORDER BY request_id""",
    )


def hours_sum_records(books: Books) -> Outcome:
    columns = {
        "requests": "sum(requests)",
        "input_tokens": "sum(input_tokens)",
        "output_tokens": "sum(output_tokens)",
        "cache_write_tokens": "sum(cache_write_5m_tokens + cache_write_1h_tokens)",
        "cache_read_tokens": "sum(cache_read_tokens)",
        "cost_nanos": "sum(cost_nanos)",
        "upstream_cost_nanos": "sum(upstream_cost_nanos)",
    }
    summed = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    given = ", ".join(f"rollup.{name}" for name in columns)
    counted = ", ".join(f"records.{name}" for name in columns)
    return books.judge(
        "SELECT count(*) FROM billing_usagehour WHERE ADMITTED(hour)",
        f"""SELECT format('hour %s of organization %s, key %s, %s: rolled up (%s), records (%s)', hour, organization_id,
                key_id, model_id, concat_ws(', ', {given}), concat_ws(', ', {counted}))
            FROM (SELECT * FROM billing_usagehour WHERE ADMITTED(hour)) rollup
            FULL JOIN (SELECT organization_id, date_trunc('hour', admitted_at, 'UTC') AS hour, key_id, model_id,
                    {summed} FROM ({TRUE_USAGE} WHERE ADMITTED(record.admitted_at)) usage GROUP BY 1, 2, 3, 4) records
                USING (organization_id, hour, key_id, model_id)
            WHERE ROW({given}) IS DISTINCT FROM ROW({counted}) ORDER BY 1""",  # noqa: S608  Constants.
    )


def budget_days_sum_records(books: Books) -> Outcome:
    return books.judge(
        "SELECT count(*) FROM billing_budgetday WHERE ON_DAYS(admitted_day)",
        """SELECT format('day %s of organization %s, key %s: posted %s nanos and last used %s, records %s, last %s',
                admitted_day, organization_id, key_id, rollup.cost_nanos, rollup.last_admitted_at, records.cost_nanos,
                records.last_admitted_at)
            FROM (SELECT * FROM billing_budgetday WHERE ON_DAYS(admitted_day)) rollup
            FULL JOIN (SELECT record.organization_id, key.key_id, admitted_day, sum(record.cost_nanos + greatest(
                    coalesce(correction.cost_after_nanos - correction.cost_before_nanos, 0), 0)) AS cost_nanos,
                    max(record.admitted_at) FILTER (WHERE record.cost_nanos <> 0) AS last_admitted_at
                FROM billing_usagerecord record LEFT JOIN billing_usagecorrection correction USING (request_id)
                CROSS JOIN LATERAL (VALUES (record.key_id), (0)) AS key (key_id)
                WHERE ON_DAYS(record.admitted_day) AND AROUND(record.admitted_at)
                GROUP BY 1, 2, 3) records USING (organization_id, key_id, admitted_day)
            WHERE coalesce(rollup.cost_nanos, 0) <> coalesce(records.cost_nanos, 0)
               OR rollup.last_admitted_at <> records.last_admitted_at ORDER BY 1""",
    )


def spender_days_are_within_budget_days(books: Books) -> Outcome:
    """What members, or end users, spent on a day is at most what their organization did. Not all of it names one."""
    return books.judge(
        "SELECT count(*) FROM billing_spenderday",
        """SELECT format('day %s of organization %s: %s of scope %s are counted, of %s nanos in all', admitted_day,
                organization_id, spent.cost_nanos, scope, coalesce(budget.cost_nanos, 0))
            FROM (SELECT organization_id, scope, admitted_day, sum(cost_nanos) AS cost_nanos
                FROM billing_spenderday GROUP BY 1, 2, 3) spent
            LEFT JOIN billing_budgetday budget USING (organization_id, admitted_day)
            WHERE coalesce(budget.key_id, 0) = 0 AND spent.cost_nanos > coalesce(budget.cost_nanos, 0) ORDER BY 1""",
    )


def corrections_are_of_orphans(books: Books) -> Outcome:
    """A correction is of an orphan of its organization, and its one transaction posts its difference."""
    return books.judge(
        "SELECT count(*) FROM billing_usagecorrection",
        """SELECT format('correction %s of organization %s is of no orphan of that organization', correction.request_id,
                correction.organization_id)
            FROM billing_usagecorrection correction LEFT JOIN billing_usagerecord record USING (request_id)
            WHERE record.usage_source IS DISTINCT FROM 'orphan'
               OR record.organization_id IS DISTINCT FROM correction.organization_id ORDER BY correction.request_id""",
        """SELECT format('correction %s changes the cost from %s to %s nanos, and %s are posted', correction.request_id,
                cost_before_nanos, cost_after_nanos, coalesce(posted.nanos, 0))
            FROM billing_usagecorrection correction
            LEFT JOIN (SELECT ledger.id, ledger.idempotency_key, sum(entry.amount_nanos) AS nanos
                FROM billing_ledgertransaction ledger JOIN billing_ledgerentry entry ON entry.transaction_id = ledger.id
                JOIN billing_ledgeraccount account ON account.id = entry.account_id AND account.kind = 'revenue'
                WHERE ledger.kind = 'correction' GROUP BY 1, 2) posted
                ON posted.id = correction.ledger_transaction_id
               AND posted.idempotency_key = 'correction:' || replace(correction.request_id::text, '-', '')
            WHERE coalesce(posted.nanos, 0) <> cost_after_nanos - cost_before_nanos ORDER BY correction.request_id""",
        """SELECT format('transaction %s is a correction, and none names it', id) FROM billing_ledgertransaction ledger
            WHERE kind = 'correction' AND NOT EXISTS
                (SELECT 1 FROM billing_usagecorrection WHERE ledger_transaction_id = ledger.id) ORDER BY id""",
    )


USAGE_CHECKS = (
    Check("I3", "every request ends in one state", requests_end_once, is_whole=True),
    Check("I3", "failed requests are kept", failures_are_kept, is_whole=True),
    Check("I3", "nothing is in quarantine", quarantine_is_empty, is_whole=True),
    Check("I4", "every usage record has one debit, of its cost", records_have_one_debit),
    Check("I4", "every usage record has the price of its model and time", records_are_priced_by_their_models_price),
    Check("I4", "price factors change no past", price_factors_change_no_past),
    Check("I13", "every usage record is of one organization and day", records_are_of_one_organization_and_day),
    Check("I4", "every usage record costs what its price version says", records_rate_as_recorded),
    Check("I5", "no provider lately reported more than a request can have used", reports_are_possible),
    Check("I4", "corrections are of orphans, and posted once", corrections_are_of_orphans, is_whole=True),
    Check("I4", "hourly roll-ups are the sums of their records", hours_sum_records),
    Check("I4", "budget days are the sums of their records", budget_days_sum_records),
    Check("I4", "days of members and end users are within budget days", spender_days_are_within_budget_days, True),
)
