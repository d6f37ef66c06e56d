"""Double entry: transactions sum to zero, accounts follow from their entries, organizations do not mix.

An account is a chain: each entry has the next number, and the balance before it plus its amount. So a span of entries
needs only the one entry before it, and the account's balance only the last.
"""

from billing.checks.books import Books, Outcome
from billing.checks.invariant import Check

ENTRIES = "SELECT count(*) FROM billing_ledgerentry WHERE POSTED(transaction_id)"
TRANSACTIONS = "SELECT count(*) FROM billing_ledgertransaction WHERE POSTED(id)"
ACCOUNTS = "SELECT count(*) FROM billing_ledgeraccount"
# The balance and the number of the entry before the first one of a span: asked only there, by the index.
EARLIER = """(SELECT earlier.{column} FROM billing_ledgerentry earlier
                    WHERE earlier.account_id = entry.account_id AND earlier.seq = entry.seq - 1)"""
EARLIER_POSTED = EARLIER.format(column="balance_after_nanos").replace(
    "entry.seq - 1", "entry.seq - 1 AND earlier.transaction_id < entry.transaction_id"
)


def transactions_sum_to_zero(books: Books) -> Outcome:
    return books.judge(
        TRANSACTIONS,
        """SELECT format('transaction %s sums to %s nanos', transaction_id, sum(amount_nanos))
            FROM billing_ledgerentry WHERE POSTED(transaction_id)
            GROUP BY transaction_id HAVING sum(amount_nanos) <> 0 ORDER BY transaction_id""",
        """SELECT format('transaction %s has no entries', id) FROM billing_ledgertransaction ledger
            WHERE POSTED(ledger.id) AND NOT EXISTS (SELECT 1 FROM billing_ledgerentry entry
                WHERE entry.transaction_id = ledger.id AND POSTED(entry.transaction_id)) ORDER BY id""",
    )


def accounts_follow_from_entries(books: Books) -> Outcome:
    """The balance of an account is the one after its last entry, and its last number that of this entry."""
    return books.judge(
        ACCOUNTS,
        """SELECT format('account %s: balance %s, sum of entries %s, last seq %s, entries %s',
                account.id, account.balance_nanos, coalesce(last.balance_after_nanos, 0), account.last_seq,
                coalesce(last.seq, 0))
            FROM billing_ledgeraccount account
            LEFT JOIN LATERAL (SELECT seq, balance_after_nanos FROM billing_ledgerentry entry
                WHERE entry.account_id = account.id ORDER BY seq DESC LIMIT 1) last ON true
            WHERE account.balance_nanos <> coalesce(last.balance_after_nanos, 0)
               OR account.last_seq <> coalesce(last.seq, 0) ORDER BY account.id""",
    )


def entries_run_without_gaps(books: Books) -> Outcome:
    return books.judge(
        ENTRIES,
        f"""SELECT CASE WHEN seq <> seq_before + 1
                THEN format('account %s: entry seq %s stands in place %s', account_id, seq, seq_before + 1)
                ELSE format('account %s seq %s: balance after is %s, with the entry before it %s', account_id, seq,
                    balance_after_nanos, balance_before + amount_nanos) END
            FROM (SELECT account_id, seq, amount_nanos, balance_after_nanos,
                    coalesce(seq_before, CASE WHEN seq_before IS NULL THEN {EARLIER.format(column="seq")} END, 0)
                        AS seq_before,
                    coalesce(balance_before,
                        CASE WHEN seq_before IS NULL THEN {EARLIER.format(column="balance_after_nanos")} END, 0)
                        AS balance_before
                FROM (SELECT account_id, seq, amount_nanos, balance_after_nanos, lag(seq) OVER chain AS seq_before,
                        lag(balance_after_nanos) OVER chain AS balance_before
                    FROM billing_ledgerentry WHERE POSTED(transaction_id)
                    WINDOW chain AS (PARTITION BY account_id ORDER BY seq)) entry) linked
            WHERE seq <> seq_before + 1 OR balance_after_nanos <> balance_before + amount_nanos
            ORDER BY account_id, seq""",  # noqa: S608  Constants.
    )


def balances_follow_from_accounts(books: Books) -> Outcome:
    return books.judge(
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
        # Counted from an index alone.
        """SELECT format('organization %s: version %s, but %s postings', organization_id, version, postings) FROM (
                SELECT balance.organization_id, balance.version, counted.postings
                FROM billing_organizationbalance balance
                JOIN (SELECT organization_id, count(*) AS postings FROM billing_ledgertransaction
                    WHERE organization_id IS NOT NULL GROUP BY organization_id) counted USING (organization_id)
            ) compared WHERE version < postings ORDER BY organization_id""",
    )


def organizations_do_not_mix(books: Books) -> Outcome:
    return books.judge(
        ENTRIES,
        """SELECT format('transaction %s of organization %s has an entry of account %s of organization %s',
                ledger.id, ledger.organization_id, account.id, account.organization_id)
            FROM billing_ledgerentry entry
            JOIN billing_ledgeraccount account ON account.id = entry.account_id
            JOIN billing_ledgertransaction ledger ON ledger.id = entry.transaction_id
            WHERE account.organization_id IS NOT NULL AND POSTED(entry.transaction_id) AND POSTED(ledger.id)
              AND account.organization_id IS DISTINCT FROM ledger.organization_id
            ORDER BY ledger.id""",
        """SELECT format('transaction %s of organization %s moves lot %s of organization %s',
                ledger.id, ledger.organization_id, lot.id, lot.organization_id)
            FROM billing_creditlotentry entry
            JOIN billing_creditlot lot ON lot.id = entry.lot_id
            JOIN billing_ledgertransaction ledger ON ledger.id = entry.transaction_id
            WHERE lot.organization_id IS DISTINCT FROM ledger.organization_id
              AND POSTED(entry.transaction_id) AND POSTED(ledger.id) ORDER BY ledger.id""",
        """SELECT format('usage %s of organization %s is debited by transaction %s of organization %s',
                record.request_id, record.organization_id, ledger.id, ledger.organization_id)
            FROM billing_usagerecord record JOIN billing_ledgertransaction ledger
                ON ledger.id = record.ledger_transaction_id
            WHERE record.organization_id IS DISTINCT FROM ledger.organization_id
              AND POSTED(record.ledger_transaction_id) AND POSTED(ledger.id) ORDER BY record.request_id""",
    )


def past_balances_can_be_recomputed(books: Books) -> Outcome:
    """In the order of transactions, each entry adds to the balance that was recorded before: as of any moment."""
    return books.judge(
        ENTRIES,
        f"""SELECT format('account %s after transaction %s: recorded %s, recomputed %s',
                account_id, transaction_id, balance_after_nanos, balance_before + amount_nanos)
            FROM (SELECT account_id, transaction_id, amount_nanos, balance_after_nanos, coalesce(balance_before,
                    CASE WHEN balance_before IS NULL THEN {EARLIER_POSTED} END, 0)
                    AS balance_before
                FROM (SELECT account_id, seq, transaction_id, amount_nanos, balance_after_nanos,
                        lag(balance_after_nanos) OVER (PARTITION BY account_id ORDER BY transaction_id)
                            AS balance_before
                    FROM billing_ledgerentry WHERE POSTED(transaction_id)) entry) running
            WHERE balance_after_nanos <> balance_before + amount_nanos ORDER BY account_id, transaction_id""",  # noqa: S608  Constants.
    )


ACCOUNT_CHECKS = (
    Check("I1", "the entries of every transaction sum to zero", transactions_sum_to_zero),
    Check("I2", "account balances are the sums of their entries", accounts_follow_from_entries, is_whole=True),
    Check("I2", "entries are numbered without gaps, each with the balance after it", entries_run_without_gaps),
    Check("I2", "posted balances are the sums of the organizations' accounts", balances_follow_from_accounts, True),
    Check("I13", "no transaction links two organizations", organizations_do_not_mix),
    Check("I15", "past balances can be recomputed", past_balances_can_be_recomputed),
)
