"""Double entry: transactions sum to zero, accounts follow from their entries, organizations do not mix."""

from billing.checks.invariant import Check, Outcome, judge

ENTRIES = "SELECT count(*) FROM billing_ledgerentry"
TRANSACTIONS = "SELECT count(*) FROM billing_ledgertransaction"
ACCOUNTS = "SELECT count(*) FROM billing_ledgeraccount"


def transactions_sum_to_zero() -> Outcome:
    return judge(
        TRANSACTIONS,
        """SELECT format('transaction %s sums to %s nanos', transaction_id, sum(amount_nanos))
            FROM billing_ledgerentry GROUP BY transaction_id HAVING sum(amount_nanos) <> 0 ORDER BY transaction_id""",
        """SELECT format('transaction %s has no entries', id) FROM billing_ledgertransaction ledger
            WHERE NOT EXISTS (SELECT 1 FROM billing_ledgerentry WHERE transaction_id = ledger.id) ORDER BY id""",
    )


def accounts_follow_from_entries() -> Outcome:
    """The sum of its entries, the last `balance_after` and the stored balance of an account are one amount."""
    return judge(
        ACCOUNTS,
        """SELECT format('account %s: balance %s, sum of entries %s, last seq %s, entries %s',
                account.id, account.balance_nanos, coalesce(total, 0), account.last_seq, coalesce(entries, 0))
            FROM billing_ledgeraccount account
            LEFT JOIN (SELECT account_id, sum(amount_nanos) AS total, count(*) AS entries, max(seq) AS highest
                FROM billing_ledgerentry GROUP BY account_id) given ON given.account_id = account.id
            WHERE account.balance_nanos <> coalesce(total, 0)
               OR account.last_seq <> coalesce(entries, 0) OR account.last_seq <> coalesce(highest, 0)
            ORDER BY account.id""",
    )


def entries_run_without_gaps() -> Outcome:
    return judge(
        ENTRIES,
        """SELECT format('account %s: entry seq %s stands in place %s', account_id, seq, place) FROM (
                SELECT account_id, seq, row_number() OVER (PARTITION BY account_id ORDER BY seq) AS place
                FROM billing_ledgerentry) numbered
            WHERE seq <> place ORDER BY account_id, seq""",
        """SELECT format('account %s seq %s: balance after is %s, the entries up to it sum to %s',
                account_id, seq, balance_after_nanos, total) FROM (
                SELECT account_id, seq, balance_after_nanos,
                    sum(amount_nanos) OVER (PARTITION BY account_id ORDER BY seq) AS total
                FROM billing_ledgerentry) running
            WHERE balance_after_nanos <> total ORDER BY account_id, seq""",
    )


def balances_follow_from_accounts() -> Outcome:
    return judge(
        "SELECT count(*) FROM billing_organizationbalance",
        """SELECT format('organization %s: posted balance %s, sum of its accounts %s',
                coalesce(balance.organization_id, given.organization_id), balance.posted_nanos, given.total)
            FROM billing_organizationbalance balance
            FULL JOIN (SELECT organization_id, sum(balance_nanos) AS total FROM billing_ledgeraccount
                WHERE organization_id IS NOT NULL GROUP BY organization_id) given
                ON given.organization_id = balance.organization_id
            WHERE balance.posted_nanos IS DISTINCT FROM given.total
              AND (coalesce(balance.posted_nanos, 0) <> 0 OR coalesce(given.total, 0) <> 0)
            ORDER BY 1""",
        """SELECT format('organization %s: version %s, but %s postings', organization_id, version, postings) FROM (
                SELECT balance.organization_id, balance.version, count(ledger.id) AS postings
                FROM billing_organizationbalance balance
                JOIN billing_ledgertransaction ledger ON ledger.organization_id = balance.organization_id
                GROUP BY balance.organization_id) counted
            WHERE version < postings ORDER BY organization_id""",
    )


def organizations_do_not_mix() -> Outcome:
    return judge(
        ENTRIES,
        """SELECT format('transaction %s of organization %s has an entry of account %s of organization %s',
                ledger.id, ledger.organization_id, account.id, account.organization_id)
            FROM billing_ledgerentry entry
            JOIN billing_ledgeraccount account ON account.id = entry.account_id
            JOIN billing_ledgertransaction ledger ON ledger.id = entry.transaction_id
            WHERE account.organization_id IS NOT NULL
              AND account.organization_id IS DISTINCT FROM ledger.organization_id
            ORDER BY ledger.id""",
        """SELECT format('transaction %s of organization %s moves lot %s of organization %s',
                ledger.id, ledger.organization_id, lot.id, lot.organization_id)
            FROM billing_creditlotentry entry
            JOIN billing_creditlot lot ON lot.id = entry.lot_id
            JOIN billing_ledgertransaction ledger ON ledger.id = entry.transaction_id
            WHERE lot.organization_id IS DISTINCT FROM ledger.organization_id ORDER BY ledger.id""",
        """SELECT format('usage %s of organization %s is debited by transaction %s of organization %s',
                record.request_id, record.organization_id, ledger.id, ledger.organization_id)
            FROM billing_usagerecord record JOIN billing_ledgertransaction ledger
                ON ledger.id = record.ledger_transaction_id
            WHERE record.organization_id IS DISTINCT FROM ledger.organization_id ORDER BY record.request_id""",
    )


def past_balances_can_be_recomputed() -> Outcome:
    """Summed in the order of transactions, entries give the balance that was recorded after each: as of any moment."""
    return judge(
        ENTRIES,
        """SELECT format('account %s after transaction %s: recorded %s, recomputed %s',
                account_id, transaction_id, balance_after_nanos, total) FROM (
                SELECT account_id, transaction_id, balance_after_nanos,
                    sum(amount_nanos) OVER (PARTITION BY account_id ORDER BY transaction_id) AS total
                FROM billing_ledgerentry) running
            WHERE balance_after_nanos <> total ORDER BY account_id, transaction_id""",
    )


ACCOUNT_CHECKS = (
    Check("I1", "the entries of every transaction sum to zero", transactions_sum_to_zero),
    Check("I2", "account balances are the sums of their entries", accounts_follow_from_entries),
    Check("I2", "entries are numbered without gaps, each with the balance after it", entries_run_without_gaps),
    Check("I2", "posted balances are the sums of the organizations' accounts", balances_follow_from_accounts),
    Check("I13", "no transaction links two organizations", organizations_do_not_mix),
    Check("I15", "past balances can be recomputed", past_balances_can_be_recomputed),
)
