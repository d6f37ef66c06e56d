"""Corruptions of the ledger and of credit lots, and what a corruption is; see corruptions.py."""

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
        "UPDATE billing_ledgertransaction SET reason = 'x' WHERE id = {usage}", True, "I18"),
    Corruption(
        "a transaction's actor is changed",
        "UPDATE billing_ledgertransaction SET actor = 'mallory' WHERE id = {usage}", True, "I18", "I18"),
    *(
        Corruption(
            f"the time of a {kind} is moved",
            f"UPDATE billing_ledgertransaction SET created_at = created_at - interval '3 hours' WHERE id = {{{name}}}",  # noqa: S608
            True, "I18")
        for kind, name in (("top-up", "top_up"), ("promotion", "promotion"), ("refund", "refund"))
    ),
    Corruption(
        "the time of a top-up is moved, and that of its lot",
        """WITH moved AS (UPDATE billing_creditlot SET created_at = created_at - interval '3 hours' WHERE id = {lot})
            UPDATE billing_ledgertransaction SET created_at = created_at - interval '3 hours' WHERE id = {top_up}""",
        True, "I18"),
    Corruption(
        "a debit's input is changed",
        "UPDATE billing_ledgertransaction SET input_sha256 = sha256('x') WHERE id = {usage}", True, "I18"),
    Corruption(
        "a transaction loses its seal",
        "UPDATE billing_ledgertransaction SET seal = NULL WHERE id = {usage}", True, "I18", "I18"),
    Corruption(
        "an orphan's loss is changed, wherever it is written",
        """WITH entries AS (UPDATE billing_ledgerentry
                SET amount_nanos = amount_nanos * 2, balance_after_nanos = balance_after_nanos + amount_nanos
                WHERE transaction_id = {loss} RETURNING account_id, amount_nanos / 2 AS nanos),
            accounts AS (UPDATE billing_ledgeraccount account SET balance_nanos = balance_nanos + nanos
                FROM entries WHERE account.id = account_id),
            hours AS (UPDATE billing_usagehour SET upstream_cost_nanos = upstream_cost_nanos + 5000
                WHERE organization_id = {alice}),
            days AS (UPDATE billing_usageday SET upstream_cost_nanos = upstream_cost_nanos + 5000
                WHERE organization_id = {alice})
            UPDATE billing_usagerecord SET upstream_cost_nanos = upstream_cost_nanos * 2
            WHERE request_id = '{lost}'""", True, "I18"),
    Corruption(
        "credit is made up, with all that belongs to it",
        """WITH made AS (INSERT INTO billing_ledgertransaction (id, kind, idempotency_key, input_sha256,
                organization_id, actor, reason, created_at, entry_count, seal)
                SELECT {last} + 1000, 'promotion', 'made up', '\\x{made_up}', {alice}, actor, 'x', now(), 2, seal
                FROM billing_ledgertransaction WHERE id = {promotion} RETURNING id),
            lots AS (INSERT INTO billing_creditlot (organization_id, kind, origin, amount_nanos, remaining_nanos,
                priority, created_at) VALUES ({alice}, 'promotional', 'x', 5, 5, 100, now()) RETURNING id),
            lot_entries AS (INSERT INTO billing_creditlotentry (lot_id, transaction_id, amount_nanos,
                remaining_after_nanos) SELECT lots.id, made.id, 5, 5 FROM lots, made),
            entries AS (INSERT INTO billing_ledgerentry (transaction_id, account_id, seq, amount_nanos,
                balance_after_nanos)
                SELECT made.id, account.id, last_seq + 1, n, balance_nanos + n FROM made, billing_ledgeraccount account
                JOIN (VALUES ({promotional}, 5), ({expense}, -5)) AS given (account, n) ON account.id = given.account
                RETURNING account_id, amount_nanos),
            accounts AS (UPDATE billing_ledgeraccount account SET balance_nanos = balance_nanos + entries.amount_nanos,
                last_seq = last_seq + 1 FROM entries WHERE account.id = account_id RETURNING account.id)
            UPDATE billing_organizationbalance SET posted_nanos = posted_nanos + 5, version = version + 1
            WHERE organization_id = {alice} AND EXISTS (SELECT FROM accounts)""", False, "I18"),
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
        "a lot's origin is changed", "UPDATE billing_creditlot SET origin = 'x' WHERE id = {lot}", True, "I18"),
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
