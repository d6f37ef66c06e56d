"""Fills an empty database with the records of a year: `python -m bench.load_records --records 1000000`.

Settlement would take hours for what is wanted here in minutes, so Postgres makes the rows itself, month by month, as
settlement would have left them: usage records and their details, debits, lots drawn from, roll-ups and budget days.
`manage.py check_ledger` finds no break in them. A few organizations are hot and most are cold, of their keys the last
are idle. DATABASE_URL names the database, whose user must be a superuser.
"""

import argparse
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import islice, pairwise
from unittest.mock import patch

RECORDS = 1_000_000
ORGANIZATIONS, MODELS, MONTHS, KEYS = 500, 20, 13, 4
BATCH_RECORDS = 2_000  # Of all organizations, settled together: one debit for each organization among them.
CREDIT_USD = 1_000_000
SKEW = 3  # The cube of a random number: a few organizations have most of the requests.
SEALED_AT_ONCE = 10_000
FAILED_OF = 100  # One request of so many failed.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=RECORDS)
    parser.add_argument("--organizations", type=int, default=ORGANIZATIONS)
    parser.add_argument("--keys", type=int, default=KEYS, help="of each organization, at most 1,000")
    options = parser.parse_args()
    import os

    os.environ["DJANGO_SETTINGS_MODULE"] = "crossmodel_site.settings"
    import django

    django.setup()
    started = time.perf_counter()
    for begins, records in load(records=options.records, organizations=options.organizations, keys=options.keys):
        print(f"{begins:%Y-%m}: {records:,} records, {time.perf_counter() - started:.0f} s", flush=True)


def load(
    *,
    records: int,
    organizations: int = ORGANIZATIONS,
    models: int = MODELS,
    keys: int = KEYS,
    months: int = MONTHS,
    batch: int = BATCH_RECORDS,
    now: datetime | None = None,
) -> Iterator[tuple[datetime, int]]:
    """Yield each month with its number of records once it is written. Raises SystemExit where there are records."""
    from django.conf import settings
    from django.db import connection, transaction

    from billing.models import UsageRecord
    from billing.partitions import create_partitions

    if settings.PRODUCTION or UsageRecord.objects.exists():
        raise SystemExit("This fills the books with what never happened: only a database without records will do.")
    now = now or datetime.now(UTC)
    bounds = [*month_bounds(now, months), now - timedelta(minutes=5)]
    for begins in bounds[:-1]:
        create_partitions(now=begins)
    with connection.cursor() as cursor:
        cursor.execute("SELECT setseed(0.5)")
    _sell(models, bounds[0])
    _open_accounts(organizations, keys, bounds[0])
    span = (bounds[-1] - bounds[0]).total_seconds()
    for begins, ends in pairwise(bounds):
        count = int(records * (ends - begins).total_seconds() / span)
        with transaction.atomic(), connection.cursor() as cursor:
            # No trigger and no foreign key judges what is written: check_ledger does afterwards.
            cursor.execute("SET LOCAL session_replication_role = replica")
            cursor.execute("SET LOCAL work_mem = '256MB'")
            cursor.execute("SELECT max(id) FROM billing_ledgertransaction")
            (last,) = cursor.fetchone()
            for statement in MONTH:
                cursor.execute(
                    statement,
                    {
                        "count": count,
                        "first_ms": int(begins.timestamp() * 1000),
                        "span_ms": int((ends - begins).total_seconds() * 1000),
                        "batch": batch,
                        "skew": SKEW,
                        "failed_of": FAILED_OF,
                    },
                )
            _seal(last)
            cursor.execute("SET LOCAL session_replication_role = origin")
        yield begins, count
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT setval(pg_get_serial_sequence('billing_ledgertransaction', 'id'), max(id))"
            " FROM billing_ledgertransaction"
        )
        cursor.execute("ANALYZE")


def _seal(last_transaction_id: int) -> None:
    """Seal what was loaded after this transaction, as the book seals what it posts."""
    from billing.bulk_rows import run_rows
    from billing.checks.books import Books, Span
    from billing.checks.seals import read_sealed
    from billing.ledger.seals import make_seal, sealing_key

    key, rows = sealing_key(), read_sealed(Books(Span(last_transaction_id)))
    while batch := [(sealed.transaction_id, make_seal(key, sealed)) for sealed, _ in islice(rows, SEALED_AT_ONCE)]:
        run_rows(
            "UPDATE billing_ledgertransaction ledger SET seal = given.seal FROM {rows} WHERE id = given.sealed_id",
            {"sealed_id": "bigint", "seal": "bytea"},
            batch,
        )


def month_bounds(now: datetime, months: int) -> list[datetime]:
    """Return the first moments of the last months, the current one included."""
    numbers = range(now.year * 12 + now.month - months, now.year * 12 + now.month)
    return [datetime(number // 12, number % 12 + 1, 1, tzinfo=UTC) for number in numbers]


def _sell(models: int, since: datetime) -> None:
    from billing.catalog.price_versions import PriceDraft, approve_price_version, draft_price
    from billing.models import LanguageModel

    for number in range(models):
        model = LanguageModel.objects.create(
            model_id=f"load/model-{number:02}", context_tokens=1_000_000, max_output_tokens=64_000
        )
        nanos = 1 + number  # For an input token; whole nano-dollars, so that nothing is rounded.
        tiers = {
            name: ((0, 1_000 * nanos * factor),) for name, factor in (("input", 10), ("output", 50), ("cache_read", 1))
        }
        draft = PriceDraft(since - timedelta(days=2), "bench", date(2025, 1, 1), tiers)
        approve_price_version(draft_price(model, draft, created_by="a"), approved_by="b")


def _open_accounts(organizations: int, keys: int, since: datetime) -> None:
    """Make organizations with credit, keys and the accounts of the system that settlement books to."""
    from accounts.keys import create_key
    from accounts.organizations import create_organization
    from billing.credit.top_ups import grant_credit
    from billing.ledger import rows
    from billing.models import CreditLot, LedgerAccount
    from billing.shards import SHARD_COUNT

    allocate = rows.allocate_ids
    with patch.object(rows, "allocate_ids", lambda table, count: (allocate(table, count)[0], since)):
        for number in range(organizations):
            organization = create_organization(name=f"Load {number:04}", slug=f"load-{number:04}")
            for key in range(keys):
                create_key(organization, name=f"Key {key}", created_by=None)
            grant_credit(
                organization,
                amount_nanos=CREDIT_USD * 10**9,
                kind=CreditLot.Kind.PAID,
                reason="bench",
                actor="bench",
                idempotency_key=f"load:{number}",
            )
    for shard in range(SHARD_COUNT):
        LedgerAccount.objects.get_or_create(
            kind=LedgerAccount.Kind.REVENUE, shard=shard, payment_provider="", organization=None
        )


_ID = "(lpad(to_hex(ms), 12, '0') || '7' || substr(digits, 1, 3) || '8' || substr(digits, 4, 15))::uuid"
_AT = "to_timestamp(ms / 1000.0)"
_SUMS = """count(*), sum(input_tokens), sum(output_tokens), 0, sum(cache_read_tokens), sum(cost_nanos),
            sum(cost_nanos / 2), count(*), 300 * count(*), 905 * count(*)"""
_SETTLED = "to_timestamp((max(ms) OVER (PARTITION BY batch) + 1000) / 1000.0)"
# Each takes the same parameters.
MONTH: tuple[str, ...] = (
    """CREATE TEMP TABLE load_organization AS
        SELECT row_number() OVER (ORDER BY organization.id) - 1 AS number, organization.id AS organization_id,
            (SELECT array_agg(id ORDER BY id) FROM accounts_apikey WHERE organization_id = organization.id) AS keys,
            prepaid.id AS account_id, lot.id AS lot_id, revenue.id AS revenue_id
        FROM accounts_organization organization
        JOIN billing_ledgeraccount prepaid ON prepaid.organization_id = organization.id AND prepaid.kind = 'prepaid'
        JOIN billing_ledgeraccount revenue ON revenue.kind = 'revenue' AND revenue.shard = organization.id %% 64
        JOIN billing_creditlot lot ON lot.organization_id = organization.id
        WHERE organization.slug LIKE 'load-%%'""",
    """CREATE TEMP TABLE load_model AS
        SELECT row_number() OVER (ORDER BY model.id) - 1 AS number, model.id AS language_model_id, model.model_id,
            version.id AS price_version_id, row_number() OVER (ORDER BY model.id) AS nanos
        FROM billing_languagemodel model JOIN billing_priceversion version ON version.language_model_id = model.id
        WHERE model.model_id LIKE 'load/%%'""",
    """CREATE TEMP TABLE load_drawn AS
        SELECT n, %(first_ms)s + n * %(span_ms)s / %(count)s AS ms, n / %(batch)s AS batch,
            md5(%(first_ms)s || ' ' || n) AS digits, random() ^ %(skew)s AS whose, random() ^ 4 AS which,
            random() ^ 2 AS kind, (200 + 8000 * random() ^ 3)::bigint AS input_tokens,
            (1 + 1500 * random() ^ 2)::bigint AS output_tokens,
            CASE WHEN random() < 0.4 THEN (20000 * random())::bigint ELSE 0 END AS cache_read_tokens,
            n %% %(failed_of)s = 7 AS is_failed
        FROM generate_series(0, %(count)s - 1) AS n""",
    f"""CREATE TEMP TABLE load_request AS
        SELECT {_ID} AS request_id, ms, batch, {_SETTLED} AS settled_at, is_failed, organization_id, account_id, lot_id,
            revenue_id, keys[1 + floor(which * array_length(keys, 1))::int] AS key_id, language_model_id, model_id,
            price_version_id, input_tokens, output_tokens, cache_read_tokens,
            CASE WHEN is_failed THEN 0
                ELSE nanos * (10 * input_tokens + 50 * output_tokens + cache_read_tokens) END AS cost_nanos
        FROM load_drawn
        JOIN load_organization organization
            ON organization.number = floor(whose * (SELECT count(*) FROM load_organization))
        JOIN load_model model ON model.number = floor(load_drawn.kind * (SELECT count(*) FROM load_model))""",  # noqa: S608
    "ANALYZE load_request",
    """CREATE TEMP TABLE load_debit AS
        SELECT (SELECT max(id) FROM billing_ledgertransaction) + row_number() OVER (ORDER BY batch, organization_id)
                AS transaction_id, *
        FROM (SELECT batch, organization_id, min(request_id::text)::uuid AS first_request, count(*) AS requests,
                sum(cost_nanos)::bigint AS nanos, min(account_id) AS account_id, min(lot_id) AS lot_id,
                min(revenue_id) AS revenue_id, min(settled_at) AS settled_at
            FROM load_request WHERE NOT is_failed GROUP BY 1, 2) debit""",
    """INSERT INTO billing_ledgertransaction (id, kind, idempotency_key, input_sha256, organization_id, actor, reason,
            created_at, entry_count, seal)
        SELECT transaction_id, 'usage', 'usage:' || replace(first_request::text, '-', ''), sha256('load'),
            organization_id, 'settlement', requests || ' requests', settled_at, 2, ''::bytea
        FROM load_debit ORDER BY transaction_id""",
    """CREATE TEMP TABLE load_entry AS
        SELECT transaction_id, account_id, -nanos AS nanos FROM load_debit
        UNION ALL SELECT transaction_id, revenue_id, nanos FROM load_debit""",
    """INSERT INTO billing_ledgerentry (transaction_id, account_id, seq, amount_nanos, balance_after_nanos)
        SELECT transaction_id, account_id, account.last_seq + row_number() OVER running, nanos,
            account.balance_nanos + sum(nanos) OVER running
        FROM load_entry JOIN billing_ledgeraccount account ON account.id = account_id
        WINDOW running AS (PARTITION BY account_id ORDER BY transaction_id) ORDER BY transaction_id""",
    """UPDATE billing_ledgeraccount account
        SET balance_nanos = balance_nanos + given.nanos, last_seq = last_seq + given.entries
        FROM (SELECT account_id, sum(nanos) AS nanos, count(*) AS entries FROM load_entry GROUP BY 1) given
        WHERE given.account_id = account.id""",
    """INSERT INTO billing_creditlotentry (lot_id, transaction_id, amount_nanos, remaining_after_nanos)
        SELECT lot_id, transaction_id, -nanos, lot.remaining_nanos - sum(nanos) OVER running
        FROM load_debit JOIN billing_creditlot lot ON lot.id = lot_id
        WINDOW running AS (PARTITION BY lot_id ORDER BY transaction_id) ORDER BY transaction_id""",
    """UPDATE billing_creditlot lot SET remaining_nanos = remaining_nanos - given.nanos
        FROM (SELECT lot_id, sum(nanos) AS nanos FROM load_debit GROUP BY 1) given WHERE given.lot_id = lot.id""",
    """UPDATE billing_organizationbalance balance
        SET posted_nanos = posted_nanos - given.nanos, version = version + given.postings
        FROM (SELECT organization_id, sum(nanos) AS nanos, count(*) AS postings FROM load_debit GROUP BY 1) given
        WHERE given.organization_id = balance.organization_id""",
    f"""INSERT INTO billing_usagerecord (request_id, organization_id, key_id, language_model_id, model_id,
            price_version_id, factor_ppm, usage_source, input_tokens, output_tokens, cache_write_5m_tokens,
            cache_write_1h_tokens, cache_read_tokens, images, web_searches, cost_nanos, hold_nanos, upstream,
            upstream_cost_nanos, attempts, is_streamed, admitted_at, admitted_day, first_byte_ms, total_ms,
            ledger_transaction_id, settled_at)
        SELECT request_id, organization_id, key_id, language_model_id, model_id, price_version_id, 1000000, 'provider',
            input_tokens, output_tokens, 0, 0, cache_read_tokens, 0, 0, cost_nanos, 2 * cost_nanos, 'sandbox',
            cost_nanos / 2, jsonb_build_array(jsonb_build_object('upstream', 'sandbox', 'status', 200, 'outcome',
                'served', 'duration_ms', 900, 'upstream_cost_nanos', cost_nanos / 2)),
            output_tokens %% 2 = 0, {_AT}, ms / 86400000, 300, 905, transaction_id, request.settled_at
        FROM load_request request JOIN load_debit debit USING (batch, organization_id)
        WHERE NOT is_failed ORDER BY request_id""",  # noqa: S608
    f"""INSERT INTO billing_failedrequest (request_id, organization_id, key_id, model_id, error_code, attempts,
            upstream_cost_nanos, admitted_at, total_ms, settled_at)
        SELECT request_id, organization_id, key_id, model_id, 'upstream_overloaded', '[]', 0, {_AT}, 90, settled_at
        FROM load_request WHERE is_failed ORDER BY request_id""",  # noqa: S608
    """INSERT INTO billing_failedday AS counted (organization_id, admitted_day, requests)
        SELECT organization_id, ms / 86400000, count(*) FROM load_request WHERE is_failed GROUP BY 1, 2
        ON CONFLICT (organization_id, admitted_day) DO UPDATE SET requests = counted.requests + EXCLUDED.requests""",
    """INSERT INTO billing_requestdetail (request_id, organization_id, end_user, client, stop_reason,
            upstream_request_id)
        SELECT request_id, organization_id, '', 'anthropic-python/2.12.0', 'end_turn', ''
        FROM load_request WHERE NOT is_failed ORDER BY request_id""",
    f"""INSERT INTO billing_usagehour (organization_id, key_id, model_id, hour, requests, input_tokens, output_tokens,
            cache_write_tokens, cache_read_tokens, cost_nanos, upstream_cost_nanos, timed_requests, first_byte_ms,
            duration_ms)
        SELECT organization_id, key_id, model_id, date_trunc('hour', {_AT}, 'UTC'), {_SUMS}
        FROM load_request WHERE NOT is_failed GROUP BY 1, 2, 3, 4 ORDER BY 4""",  # noqa: S608
    f"""INSERT INTO billing_usageday (organization_id, key_id, model_id, day, requests, input_tokens, output_tokens,
            cache_write_tokens, cache_read_tokens, cost_nanos, upstream_cost_nanos, timed_requests, first_byte_ms,
            duration_ms)
        SELECT organization_id, key_id, model_id, ({_AT} AT TIME ZONE 'UTC')::date, {_SUMS}
        FROM load_request WHERE NOT is_failed GROUP BY 1, 2, 3, 4 ORDER BY 4""",  # noqa: S608
    """INSERT INTO billing_budgetday AS spent (organization_id, key_id, admitted_day, cost_nanos)
        SELECT organization_id, key.key_id, ms / 86400000, sum(cost_nanos)
        FROM load_request request CROSS JOIN LATERAL (VALUES (request.key_id), (0)) AS key (key_id)
        WHERE NOT is_failed GROUP BY 1, 2, 3
        ON CONFLICT (organization_id, key_id, admitted_day) DO UPDATE
        SET cost_nanos = spent.cost_nanos + EXCLUDED.cost_nanos""",
    "DROP TABLE load_organization, load_model, load_drawn, load_request, load_debit, load_entry",
)


if __name__ == "__main__":
    main()
