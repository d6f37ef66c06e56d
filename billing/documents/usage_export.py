"""Usage of a month, request by request, as CSV that Postgres itself writes: memory stays flat, however many there are.

Rows rise by request id, so whoever was cut off goes on after the last whole line. Two sets of columns: our own, from
which a bill can be recomputed (docs/recompute_bill.py), and those of FOCUS, which FinOps tools read.
"""

from collections.abc import Iterator, Mapping
from uuid import UUID

from django.db import connection

from accounts.models import Organization
from billing.documents.posted import NO_LOWER_BOUND, PostedRange, usage_bounds
from billing.pricing.cost import FACTOR_ONE_PPM

CHUNK_BYTES = 256 * 1024
FOCUS_VERSION = "1.2"

_AT = "to_char({0} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
_USD = "trim_scale({0}::numeric / 1000000000)"
# A spreadsheet would run text that begins with one of these as a formula.
_TEXT = "CASE WHEN {0} ~ '^[=+@\\t\\r-]' THEN '''' || {0} ELSE {0} END"
_TOKENS = (
    "(record.input_tokens + record.output_tokens + record.cache_write_5m_tokens + record.cache_write_1h_tokens"
    " + record.cache_read_tokens)"
)

OWN_COLUMNS: Mapping[str, str] = {
    "request_id": "'msg_' || replace(record.request_id::text, '-', '')",
    "admitted_at": _AT.format("record.admitted_at"),
    "settled_at": _AT.format("record.settled_at"),
    "key_id": "record.key_id",
    "key_name": _TEXT.format("key.name"),
    "model": _TEXT.format("record.model_id"),
    "price_version_id": "record.price_version_id",
    "factor_ppm": "record.factor_ppm",
    "input_tokens": "record.input_tokens",
    "output_tokens": "record.output_tokens",
    "cache_write_5m_tokens": "record.cache_write_5m_tokens",
    "cache_write_1h_tokens": "record.cache_write_1h_tokens",
    "cache_read_tokens": "record.cache_read_tokens",
    "images": "record.images",
    "web_searches": "record.web_searches",
    "end_user": _TEXT.format("detail.end_user"),
    "tag": _TEXT.format("detail.tag"),
    "session": _TEXT.format("detail.session"),
    "usage_source": "record.usage_source",
    "cost_nanos": "record.cost_nanos",
    "cost_usd": _USD.format("record.cost_nanos"),
    "corrected_cost_usd": _USD.format("correction.cost_after_nanos"),
    "ledger_transaction_id": "record.ledger_transaction_id",
}
# One row for a request. Its list cost is what it would have cost without the organization's factor.
_LIST_COST = f"coalesce(round(record.cost_nanos::numeric * {FACTOR_ONE_PPM} / nullif(record.factor_ppm, 0)), 0)"
FOCUS_COLUMNS: Mapping[str, str] = {
    "BilledCost": _USD.format("record.cost_nanos"),
    "BillingAccountId": _TEXT.format("%(slug)s::text"),
    "BillingAccountName": _TEXT.format("%(name)s::text"),
    "BillingCurrency": "'USD'",
    "BillingPeriodStart": _AT.format("%(begins)s::timestamptz"),
    "BillingPeriodEnd": _AT.format("%(ends)s::timestamptz"),
    "ChargeCategory": "'Usage'",
    "ChargeClass": "NULL",
    "ChargeDescription": "'Request to ' || record.model_id",
    "ChargeFrequency": "'Usage-Based'",
    "ChargePeriodStart": _AT.format("record.admitted_at"),
    "ChargePeriodEnd": _AT.format("(record.admitted_at + (record.total_ms + 1) * interval '1 millisecond')"),
    "ConsumedQuantity": _TOKENS,
    "ConsumedUnit": "'Tokens'",
    "ContractedCost": _USD.format("record.cost_nanos"),
    "EffectiveCost": _USD.format("record.cost_nanos"),
    "InvoiceId": "%(invoice)s::text",
    "InvoiceIssuerName": _TEXT.format("%(issuer)s::text"),
    "ListCost": _USD.format(_LIST_COST),
    "PricingCategory": "'Standard'",
    "PricingCurrency": "'USD'",
    "PricingQuantity": _TOKENS,
    "PricingUnit": "'Tokens'",
    "ProviderName": _TEXT.format("%(issuer)s::text"),
    "PublisherName": _TEXT.format("split_part(record.model_id, '/', 1)"),
    "ResourceId": "'msg_' || replace(record.request_id::text, '-', '')",
    "ServiceCategory": "'AI and Machine Learning'",
    "ServiceName": _TEXT.format("%(issuer)s::text"),
    "SkuId": _TEXT.format("record.model_id"),
    "SkuPriceId": "record.price_version_id",
    "SubAccountId": "record.key_id",
    "SubAccountName": _TEXT.format("key.name"),
}
COLUMN_SETS: Mapping[str, Mapping[str, str]] = {"own": OWN_COLUMNS, "focus": FOCUS_COLUMNS}


def export_usage(
    organization: Organization,
    posted: PostedRange,
    *,
    columns: str = "own",
    invoice: str = "",
    issuer: str = "",
    after: UUID | None = None,
) -> Iterator[bytes]:
    """Yield the CSV of the requests that the range's transactions paid for, and of free ones settled in its time.

    A correction of an orphan stands beside what was charged first. `after` leaves out requests up to that one.
    Close the iterator to stop Postgres. Call it outside a transaction that must not wait for a slow reader.
    """
    bounds = usage_bounds(posted)
    chosen = COLUMN_SETS[columns]
    parameters = {
        **posted.parameters,
        **bounds.parameters,
        "begins": posted.begins,
        "ends": posted.ends,
        "after": after or NO_LOWER_BOUND,
        "slug": organization.slug,
        "name": organization.name,
        "invoice": invoice,
        "issuer": issuer,
    }
    selected = ", ".join(f'{sql} AS "{name}"' for name, sql in chosen.items())
    statement = f"""COPY (
        SELECT {selected}
        FROM billing_usagerecord record
        LEFT JOIN billing_usagecorrection correction USING (request_id)
        LEFT JOIN billing_requestdetail detail USING (request_id)
        LEFT JOIN accounts_apikey key ON key.id = record.key_id AND key.organization_id = record.organization_id
        WHERE record.organization_id = %(organization_id)s AND record.request_id > %(after)s
          AND record.request_id >= %(first_request)s AND record.request_id < %(before_request)s
          AND ((record.ledger_transaction_id > %(after_id)s AND record.ledger_transaction_id <= %(last_id)s)
            OR (record.ledger_transaction_id IS NULL
                AND record.settled_at >= %(begins)s AND record.settled_at < %(ends)s))
        ORDER BY record.request_id) TO STDOUT WITH (FORMAT csv, HEADER)"""  # noqa: S608  Constants of this file.
    with connection.cursor() as cursor, cursor.copy(statement, parameters) as copy:
        kept = bytearray()
        for block in copy:
            kept += block
            if len(kept) >= CHUNK_BYTES:
                yield bytes(kept)
                kept.clear()
        if kept:
            yield bytes(kept)
