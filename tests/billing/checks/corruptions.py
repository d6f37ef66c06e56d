"""Every kind of corruption of the book of record that somebody with SQL at hand could try, and what becomes of it.

Each is one statement. `refused` says whether Postgres refuses it, by trigger or constraint. `noticed` is the invariant
by which check_ledger notices it once the triggers are taken out; "never possible" where a constraint refuses it even
then, and "" where nothing tells. `proven_by` is what notices it in a month that was proven.
`{name}` stands for an id of the ledger in test_corruptions.py.
docs/corruption.md shows this table, and a test compares the two.
"""

from tests.billing.checks.corruptions_of_ledger import LEDGER, LOTS, NEVER, Corruption

USAGE = (
    Corruption(
        "a record's cost is changed",
        "UPDATE billing_usagerecord SET cost_nanos = cost_nanos + 1 WHERE request_id = '{record}'", True, "I4"),
    *(
        Corruption(
            f"a record's {column.replace('_', ' ')} are changed",
            f"UPDATE billing_usagerecord SET {column} = {column} + 7 WHERE request_id = '{{record}}'",  # noqa: S608
            True, "I4")
        for column in ("input_tokens", "output_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens",
                       "cache_read_tokens")
    ),
    Corruption(
        "a record's price version is of another model",
        "UPDATE billing_usagerecord SET price_version_id = {other_models_price} WHERE request_id = '{record}'",
        True, "I4"),
    Corruption(
        "a record's price version is a draft",
        "UPDATE billing_usagerecord SET price_version_id = {draft} WHERE request_id = '{record}'", True, "I4"),
    Corruption(
        "a record's price version begins next year",
        "UPDATE billing_usagerecord SET price_version_id = {next_years} WHERE request_id = '{record}'", True, "I4"),
    Corruption(
        "a record's price version was replaced before",
        "UPDATE billing_usagerecord SET price_version_id = {last_years} WHERE request_id = '{record}'", True, "I4"),
    Corruption(
        "a record's price version is what an upstream charges",
        "UPDATE billing_usagerecord SET price_version_id = {upstreams} WHERE request_id = '{record}'", True, "I4"),
    Corruption(
        "a record's price version does not exist",
        "UPDATE billing_usagerecord SET price_version_id = 987654 WHERE request_id = '{record}'", True, "I4"),
    Corruption(
        "a record's factor is one that its organization never had",
        "UPDATE billing_usagerecord SET factor_ppm = 2000000 WHERE request_id = '{free}'", True, "I4"),
    Corruption(
        "a record's model is another",
        "UPDATE billing_usagerecord SET language_model_id = {other_model} WHERE request_id = '{record}'", True, "I4"),
    Corruption(
        "a record changes its organization",
        "UPDATE billing_usagerecord SET organization_id = {bob} WHERE request_id = '{record}'", True, "I13"),
    Corruption(
        "a record changes its key",
        "UPDATE billing_usagerecord SET key_id = key_id + 1 WHERE request_id = '{record}'", True, "I4"),
    Corruption(
        "a record's key is another organization's",
        "UPDATE billing_usagerecord SET key_id = {bobs_key} WHERE request_id = '{record}'", True, "I13"),
    Corruption(
        "a record's day of admission is changed",
        "UPDATE billing_usagerecord SET admitted_day = admitted_day - 3 WHERE request_id = '{record}'", True, "I13"),
    Corruption(
        "a record's time of settlement is changed",
        "UPDATE billing_usagerecord SET settled_at = settled_at - interval '1 s' WHERE request_id = '{record}'",
        True, "I4"),
    Corruption(
        "a record's upstream cost is changed",
        "UPDATE billing_usagerecord SET upstream_cost_nanos = upstream_cost_nanos + 1 WHERE request_id = '{record}'",
        True, "I4"),
    Corruption(
        "a record's source, upstream or attempts are changed",
        "UPDATE billing_usagerecord SET usage_source = 'orphan', upstream = 'x' WHERE request_id = '{record}'",
        True, ""),
    Corruption(
        "a record loses its debit",
        "UPDATE billing_usagerecord SET ledger_transaction_id = NULL WHERE request_id = '{record}'", True, "I4"),
    Corruption(
        "a free record gets a debit",
        "UPDATE billing_usagerecord SET ledger_transaction_id = {usage} WHERE request_id = '{free}'", True, "I4"),
    Corruption("a record is deleted", "DELETE FROM billing_usagerecord WHERE request_id = '{record}'", True, "I4"),
    Corruption("a free record is deleted", "DELETE FROM billing_usagerecord WHERE request_id = '{free}'", True, "I4"),
    Corruption(
        "a record is added twice",
        "INSERT INTO billing_usagerecord SELECT * FROM billing_usagerecord WHERE request_id = '{record}'",
        True, NEVER),
    Corruption(
        "a correction's cost is changed",
        "UPDATE billing_usagecorrection SET cost_after_nanos = cost_after_nanos + 1 WHERE request_id = '{corrected}'",
        True, "I4"),
    Corruption(
        "a correction's counts are changed",
        "UPDATE billing_usagecorrection SET input_tokens = input_tokens + 1 WHERE request_id = '{corrected}'",
        True, "I4"),
    Corruption(
        "a correction is deleted",
        "DELETE FROM billing_usagecorrection WHERE request_id = '{corrected}'", True, "I4"),
    Corruption(
        "a correction is of a request that was no orphan",
        "UPDATE billing_usagecorrection SET request_id = '{record}' WHERE request_id = '{corrected}'", True, "I4"),
    Corruption(
        "a failed request is deleted",
        "DELETE FROM billing_failedrequest WHERE request_id = '{failed}'", True, "I3", "I3"),
    Corruption(
        "a failed request changes its organization",
        "UPDATE billing_failedrequest SET organization_id = {bob} WHERE request_id = '{failed}'", True, "I3", "I3"),
    Corruption(
        "a billed request is said to have failed",
        "INSERT INTO billing_failedrequest SELECT '{record}', organization_id, key_id, model_id, error_code, attempts,"
        " upstream_cost_nanos, admitted_at, total_ms, settled_at FROM billing_failedrequest"
        " WHERE request_id = '{failed}'", False, "I3"),
    Corruption(
        "an hour is not the sum of its records",
        "UPDATE billing_usagehour SET cost_nanos = cost_nanos + 1 WHERE organization_id = {alice}", False, "I4"),
    Corruption(
        "an hour is deleted", "DELETE FROM billing_usagehour WHERE organization_id = {alice}", False, "I4"),
    Corruption(
        "a budget day is not the sum of its records",
        "UPDATE billing_budgetday SET cost_nanos = cost_nanos + 1 WHERE organization_id = {alice}", False, "I4"),
    Corruption(
        "a budget day says that it was used last at another time",
        "UPDATE billing_budgetday SET last_admitted_at = last_admitted_at - interval '1 s'"
        " WHERE organization_id = {alice}", False, "I4"),
    Corruption(
        "a budget day is deleted", "DELETE FROM billing_budgetday WHERE organization_id = {alice}", False, "I4"),
    Corruption(
        "an approved price is changed",
        "UPDATE billing_pricecomponent SET picos_per_unit = picos_per_unit + 1000 WHERE price_version_id = {price}",
        True, "I4"),
    Corruption(
        "a component is added to an approved price",
        "INSERT INTO billing_pricecomponent (price_version_id, component, prompt_tokens_from, picos_per_unit)"
        " VALUES ({price}, 'image', 0, 5)", True, ""),
    Corruption(
        "a price is approved by who drafted it",
        "UPDATE billing_priceversion SET approved_by = created_by WHERE id = {price}", True, "I4", "I4"),
    Corruption(
        "a model that was used is called otherwise",
        "UPDATE billing_languagemodel SET model_id = 'acme/free' WHERE model_id = 'acme/large'", True, "I4", "I4"),
    Corruption(
        "an approved price loses its approval",
        "UPDATE billing_priceversion SET approved_at = NULL, approved_by = '' WHERE id = {price}", True, "I4"),
    Corruption(
        "an approved price begins later",
        "UPDATE billing_priceversion SET effective_from = now() + interval '1 year' WHERE id = {price}", True, "I4"),
)  # fmt: skip

BESIDE = (
    Corruption(
        "a re-rated request's cost is changed",
        "UPDATE billing_reratedrequest SET cost_after_nanos = cost_after_nanos + 1", True, "I9", "I9"),
    Corruption(
        "a re-rated request's cost is changed, and what it was before",
        "UPDATE billing_reratedrequest SET cost_after_nanos = cost_after_nanos + 1,"
        " cost_before_nanos = cost_before_nanos + 1", True, "I9", "I9"),
    Corruption("re-rated requests are deleted", "DELETE FROM billing_reratedrequest", True, "I9", "I9"),
    Corruption(
        "a re-rated request names another transaction",
        "UPDATE billing_reratedrequest SET ledger_transaction_id = {top_up}", True, "I9", "I9"),
    Corruption(
        "a re-rated request is another organization's",
        "UPDATE billing_reratedrequest SET organization_id = {bob}", True, "I9", "I9"),
    Corruption(
        "a re-rating names another price version",
        "UPDATE billing_rerating SET price_version_id = {last_years}", True, "I9", "I9"),
    Corruption(
        "a price factor is changed", "UPDATE billing_organizationpricefactor SET factor_ppm = 1", True, "I4", "I4"),
    Corruption(
        "a price factor is dated back",
        "UPDATE billing_organizationpricefactor SET effective_from = effective_from - interval '1 hour'",
        True, "I4", "I4"),
    Corruption(
        "a price factor is dated back, and when it was written",
        "UPDATE billing_organizationpricefactor SET effective_from = effective_from - interval '3 days',"
        " created_at = created_at - interval '3 days'", True, "I4", "I4"),
    Corruption(
        "a price factor that began in the past is added",
        "INSERT INTO billing_organizationpricefactor (organization_id, factor_ppm, effective_from, reason, created_by,"
        " created_at) VALUES ({alice}, 1, now() - interval '9 days', 'x', 'x', now())", False, "I4"),
    Corruption("a price factor is deleted", "DELETE FROM billing_organizationpricefactor", True, "I4", "I4"),
    Corruption("an event in quarantine is changed", "UPDATE billing_usagequarantine SET raw_event = 'x'", True, "", ""),
    Corruption("an event in quarantine is deleted", "DELETE FROM billing_usagequarantine", True, "", ""),
    Corruption(
        "an event that was settled from quarantine is said to be discarded",
        "UPDATE billing_usagequarantine SET resolution = 'discarded'", True, "", ""),
)  # fmt: skip

EMPTIED = tuple(
    Corruption(f"`{table}` is emptied", f"TRUNCATE {table} CASCADE", True, noticed, *proven)
    for table, noticed, *proven in (
        ("billing_ledgertransaction", "I4"),
        ("billing_ledgerentry", "I1"),
        ("billing_ledgeraccount", "I1"),
        ("billing_organizationbalance", "I2", "I2"),
        ("billing_creditlot", "I10"),
        ("billing_creditlotentry", "I10"),
        ("billing_usagerecord", "I4"),
        ("billing_failedrequest", "I3", "I3"),
        ("billing_usagecorrection", "I4"),
        ("billing_priceversion", "I4"),
    )
)

CORRUPTIONS = (*LEDGER, *LOTS, *USAGE, *BESIDE, *EMPTIED)
