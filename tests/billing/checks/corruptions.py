"""Every kind of corruption of the book of record that somebody with SQL at hand could try, and what becomes of it.

Each is one statement. `refused` says whether Postgres refuses it, by trigger or constraint. `noticed` is the invariant
by which check_ledger notices it once the triggers are taken out; "never possible" where a constraint refuses it even
then, and "" where nothing tells. `proven_by` is what notices it in a month that was proven.
`{name}` stands for an id of the ledger in test_corruptions.py.
docs/money.md shows this table, and a test compares the two.
"""

from typing import NamedTuple

NEVER = "never possible"
DIGESTS = "I17"


class Corruption(NamedTuple):
    what: str
    sql: str
    refused: bool
    noticed: str
    proven: str = DIGESTS

    @property
    def proven_by(self) -> str:
        """What notices it in a month that was proven: its digests, if these rows never change."""
        return self.proven if self.refused and self.noticed != NEVER else self.noticed


LEDGER = (
    Corruption(
        "an entry's amount is changed",
        "UPDATE billing_ledgerentry SET amount_nanos = amount_nanos + 1 WHERE id = {entry}", True, "I1"),
    Corruption(
        "two entries are changed, and still balance",
        "UPDATE billing_ledgerentry SET amount_nanos = amount_nanos + CASE WHEN id = {entry} THEN 1 ELSE -1 END"
        " WHERE id IN ({entry}, {counter_entry})", True, "I2"),
    Corruption("an entry is deleted", "DELETE FROM billing_ledgerentry WHERE id = {entry}", True, "I1"),
    Corruption(
        "all entries of a transaction are deleted",
        "DELETE FROM billing_ledgerentry WHERE transaction_id = {usage}", True, "I1"),
    Corruption(
        "an entry moves to another account",
        "UPDATE billing_ledgerentry SET account_id = {other_prepaid}, seq = 999 WHERE id = {entry}", True, "I2"),
    Corruption(
        "an entry moves to another transaction",
        "UPDATE billing_ledgerentry SET transaction_id = {top_up} WHERE id = {entry}", True, "I1"),
    Corruption(
        "an entry's number is changed",
        "UPDATE billing_ledgerentry SET seq = 999 WHERE id = {entry}", True, "I2"),
    Corruption(
        "an entry's balance is changed",
        "UPDATE billing_ledgerentry SET balance_after_nanos = balance_after_nanos + 1 WHERE id = {entry}", True, "I2"),
    Corruption(
        "an entry of nothing is added",
        "INSERT INTO billing_ledgerentry (transaction_id, account_id, seq, amount_nanos, balance_after_nanos)"
        " VALUES ({usage}, {revenue}, 999, 0, 0)", True, NEVER),
    Corruption(
        "an entry without its counterpart is added",
        "INSERT INTO billing_ledgerentry (transaction_id, account_id, seq, amount_nanos, balance_after_nanos)"
        " SELECT {last}, id, last_seq + 1, 5, balance_nanos + 5 FROM billing_ledgeraccount WHERE id = {revenue}",
        True, "I1"),
    Corruption(
        "entries that balance are added to an old transaction, with accounts and balance",
        """WITH entries AS (INSERT INTO billing_ledgerentry
                (transaction_id, account_id, seq, amount_nanos, balance_after_nanos)
                SELECT {last}, id, last_seq + 1, n, balance_nanos + n FROM billing_ledgeraccount
                JOIN (VALUES ({revenue}, -5), ({receivable}, 5)) AS given (account, n) ON id = account RETURNING *),
            accounts AS (UPDATE billing_ledgeraccount a SET balance_nanos = a.balance_nanos + e.amount_nanos,
                last_seq = a.last_seq + 1 FROM entries e WHERE e.account_id = a.id RETURNING a.id)
            UPDATE billing_organizationbalance SET posted_nanos = posted_nanos + 5
            WHERE organization_id = {alice} AND EXISTS (SELECT FROM accounts)""", True, "I1"),
    Corruption(
        "an entry of another organization's account is added",
        "INSERT INTO billing_ledgerentry (transaction_id, account_id, seq, amount_nanos, balance_after_nanos)"
        " VALUES ({usage}, {other_prepaid}, 999, 5, 5)", True, "I13"),
    Corruption(
        "a number is given twice in an account",
        "INSERT INTO billing_ledgerentry (transaction_id, account_id, seq, amount_nanos, balance_after_nanos)"
        " VALUES ({usage}, {revenue}, 1, 5, 5)", True, NEVER),
    Corruption("a transaction is deleted", "DELETE FROM billing_ledgertransaction WHERE id = {usage}", True, "I4"),
    Corruption(
        "a transaction's kind is changed",
        "UPDATE billing_ledgertransaction SET kind = 'adjustment' WHERE id = {usage}", True, "I4"),
    Corruption(
        "a transaction's organization is changed",
        "UPDATE billing_ledgertransaction SET organization_id = {bob} WHERE id = {usage}", True, "I13"),
    Corruption(
        "a debit's key names another request",
        "UPDATE billing_ledgertransaction SET idempotency_key = 'usage:' || repeat('0', 32) WHERE id = {usage}",
        True, "I4"),
    Corruption(
        "a debit's time is changed",
        "UPDATE billing_ledgertransaction SET created_at = created_at - interval '1 day' WHERE id = {usage}",
        True, "I4"),
    Corruption(
        "a transaction's reason is changed",
        "UPDATE billing_ledgertransaction SET reason = 'x' WHERE id = {usage}", True, ""),
    Corruption(
        "a transaction's actor is changed",
        "UPDATE billing_ledgertransaction SET actor = 'mallory' WHERE id = {usage}", True, "", ""),
    Corruption(
        "a key is given to two transactions",
        "UPDATE billing_ledgertransaction SET idempotency_key = (SELECT idempotency_key FROM billing_ledgertransaction"
        " WHERE id = {top_up}) WHERE id = {usage}", True, NEVER),
    Corruption(
        "a refund's key names another request",
        "UPDATE billing_ledgertransaction SET idempotency_key = replace(idempotency_key, '{refunded}', '{unrefunded}')"
        " WHERE id = {refund}", True, "I9"),
    Corruption(
        "a refund's input is changed",
        "UPDATE billing_ledgertransaction SET input_sha256 = '\\x00' WHERE id = {refund}", True, "I9"),
    Corruption(
        "a refund exceeds what was charged",
        "UPDATE billing_ledgerentry SET amount_nanos = amount_nanos * 100 WHERE transaction_id = {refund}",
        True, "I9"),
    Corruption(
        "an account's balance is changed",
        "UPDATE billing_ledgeraccount SET balance_nanos = balance_nanos + 5 WHERE id = {revenue}", False, "I2"),
    Corruption(
        "an account's last number is changed",
        "UPDATE billing_ledgeraccount SET last_seq = last_seq + 1 WHERE id = {revenue}", False, "I2"),
    Corruption(
        "a system account's kind is changed",
        "UPDATE billing_ledgeraccount SET kind = 'breakage' WHERE id = {revenue}", True, "I2"),
    Corruption(
        "a system account's shard is changed",
        "UPDATE billing_ledgeraccount SET shard = 63 - shard WHERE id = {revenue}", True, "I2"),
    Corruption(
        "a system account's payment provider is changed",
        "UPDATE billing_ledgeraccount SET payment_provider = 'paypal' WHERE id = {cash}", True, "I10"),
    Corruption(
        "an account changes its organization",
        "UPDATE billing_ledgeraccount SET organization_id = {third} WHERE id = {prepaid}", True, "I13"),
    Corruption(
        "an account becomes the system's",
        "UPDATE billing_ledgeraccount SET organization_id = NULL WHERE id = {prepaid}", True, NEVER),
    Corruption(
        "a prepaid account falls below zero",
        "UPDATE billing_ledgeraccount SET balance_nanos = -1 WHERE id = {prepaid}", True, NEVER),
    Corruption(
        "a receivable rises above zero",
        "UPDATE billing_ledgeraccount SET balance_nanos = 1 WHERE id = {receivable}", True, NEVER),
    Corruption("an account is deleted", "DELETE FROM billing_ledgeraccount WHERE id = {prepaid}", True, "I10"),
    Corruption(
        "an organization's posted balance is changed",
        "UPDATE billing_organizationbalance SET posted_nanos = 1 WHERE organization_id = {alice}", False, "I2"),
    Corruption(
        "an organization's version falls behind",
        "UPDATE billing_organizationbalance SET version = 1 WHERE organization_id = {alice}", False, "I2"),
    Corruption(
        "an organization's balance is deleted",
        "DELETE FROM billing_organizationbalance WHERE organization_id = {alice}", True, "I2", "I2"),
)  # fmt: skip

LOTS = (
    Corruption(
        "a lot's amount is changed, and what is left of it",
        "UPDATE billing_creditlot SET amount_nanos = amount_nanos + 5 WHERE id = {lot}", True, "I10"),
    Corruption(
        "what is left of a lot is changed",
        "UPDATE billing_creditlot SET remaining_nanos = remaining_nanos + 1 WHERE id = {lot}", False, "I10"),
    Corruption(
        "a lot holds more than its amount",
        "UPDATE billing_creditlot SET remaining_nanos = amount_nanos + 1 WHERE id = {lot}", True, NEVER),
    Corruption(
        "a lot's expiry is put off",
        "UPDATE billing_creditlot SET expires_at = expires_at + interval '9 years' WHERE id = {expiring}", True, "I10"),
    Corruption(
        "a lot's expiry is taken away",
        "UPDATE billing_creditlot SET expires_at = NULL WHERE id = {expiring}", True, "I10"),
    Corruption(
        "a lot without an expiry gets one",
        "UPDATE billing_creditlot SET expires_at = now() + interval '1 day' WHERE id = {lot}", True, "I10"),
    Corruption(
        "a lot's priority is changed",
        "UPDATE billing_creditlot SET priority = 1 WHERE id = {lot}", True, "I10"),
    Corruption(
        "a lot's kind is changed", "UPDATE billing_creditlot SET kind = 'promotional' WHERE id = {lot}", True, "I10"),
    Corruption(
        "a lot changes its organization",
        "UPDATE billing_creditlot SET organization_id = {bob} WHERE id = {lot}", True, "I13"),
    Corruption(
        "a lot's origin is changed", "UPDATE billing_creditlot SET origin = 'x' WHERE id = {lot}", True, ""),
    Corruption(
        "a lot is said to have expired",
        "UPDATE billing_creditlot SET expired_at = now() WHERE id = {lot}", False, "I10"),
    Corruption("a lot is deleted", "DELETE FROM billing_creditlot WHERE id = {lot}", True, "I10"),
    Corruption(
        "a lot is added from nothing",
        "INSERT INTO billing_creditlot (organization_id, kind, origin, amount_nanos, remaining_nanos, priority,"
        " created_at) VALUES ({alice}, 'paid', 'x', 5, 5, 100, now())", False, "I10"),
    Corruption(
        "a lot entry's amount is changed",
        "UPDATE billing_creditlotentry SET amount_nanos = amount_nanos - 1 WHERE id = {lot_entry}", True, "I10"),
    Corruption(
        "a lot entry's remainder is changed",
        "UPDATE billing_creditlotentry SET remaining_after_nanos = 3 WHERE id = {lot_entry}", True, "I10"),
    Corruption(
        "a lot entry moves to another transaction",
        "UPDATE billing_creditlotentry SET transaction_id = {usage} WHERE id = {lot_opening}", True, "I10"),
    Corruption("a lot entry is deleted", "DELETE FROM billing_creditlotentry WHERE id = {lot_entry}", True, "I10"),
    Corruption(
        "a code says that it was redeemed less often",
        "UPDATE billing_redemptioncode SET redemption_count = 0 WHERE id = {code}", False, "I10"),
    Corruption(
        "a redeemed code's worth is changed",
        "UPDATE billing_redemptioncode SET amount_nanos = amount_nanos + 1 WHERE id = {code}", True, "I10", "I10"),
    Corruption(
        "a redemption is deleted", "DELETE FROM billing_redemption WHERE code_id = {code}", True, "I10", "I10"),
)  # fmt: skip

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
