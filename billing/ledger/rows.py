"""The statements of the ledger: locking, reading and writing its tables. Only billing.ledger.book calls them.

Each takes all rows at once, so that settling a thousand organizations costs as many statements as settling one.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

from billing.bulk_rows import fetch_all, insert_rows, run_rows
from billing.ledger.accounts import Account, AccountName, Balance
from billing.ledger.burn_order import Lot
from billing.models import LedgerAccount

ORGANIZATION_KINDS = tuple(kind.value for kind in LedgerAccount.ORGANIZATION_KINDS)


def lock_balances(organization_ids: Sequence[int]) -> dict[int, Balance]:
    """Lock the balances in organization id order until the transaction ends, after creating those that are missing."""
    select = """SELECT organization_id, posted_nanos, version FROM billing_organizationbalance
        WHERE organization_id = ANY(%s) ORDER BY organization_id FOR NO KEY UPDATE"""
    wanted = sorted(set(organization_ids))
    present = {
        row[0]
        for row in fetch_all(
            "SELECT organization_id FROM billing_organizationbalance WHERE organization_id = ANY(%s)", [wanted]
        )
    }
    insert_rows(
        "billing_organizationbalance",
        {"organization_id": "bigint", "posted_nanos": "bigint", "version": "bigint"},
        [(organization_id, 0, 0) for organization_id in wanted if organization_id not in present],
        tail="ON CONFLICT DO NOTHING",
    )
    return {row[0]: Balance(row[1], row[2]) for row in fetch_all(select, [wanted])}


def lock_accounts(organization_ids: Sequence[int], system: Collection[AccountName]) -> dict[AccountName, Account]:
    """Lock the organizations' accounts and the named system accounts in id order, after creating those missing."""
    wanted = [AccountName(kind, organization_id) for organization_id in organization_ids for kind in ORGANIZATION_KINDS]
    wanted += system
    found = _find_accounts(organization_ids, system)
    missing = sorted(set(wanted) - set(found), key=lambda name: tuple(str(part) for part in name))
    if missing:
        insert_rows(
            "billing_ledgeraccount",
            {
                "kind": "text",
                "organization_id": "bigint",
                "shard": "smallint",
                "payment_provider": "text",
                "balance_nanos": "bigint",
                "last_seq": "bigint",
            },
            [(*name, 0, 0) for name in missing],
            tail="ON CONFLICT DO NOTHING",
        )
        found = _find_accounts(organization_ids, system)
    names = {account_id: name for name, account_id in found.items()}
    rows = fetch_all(
        """SELECT id, balance_nanos, last_seq FROM billing_ledgeraccount
            WHERE id = ANY(%s) ORDER BY id FOR NO KEY UPDATE""",
        [sorted(names)],
    )
    return {names[row[0]]: Account(*row) for row in rows}


def _find_accounts(organization_ids: Sequence[int], system: Collection[AccountName]) -> dict[AccountName, int]:
    rows = fetch_all(
        """SELECT id, kind, organization_id, shard, payment_provider FROM billing_ledgeraccount
            WHERE organization_id = ANY(%s)
               OR (organization_id IS NULL AND kind = ANY(%s) AND shard = ANY(%s))""",
        [
            list(organization_ids),
            sorted({name.kind for name in system}),
            sorted({name.shard for name in system if name.shard is not None}),
        ],
    )
    found = {AccountName(*row[1:]): row[0] for row in rows}
    return {name: key for name, key in found.items() if name.organization_id is not None or name in system}


def read_lots(organization_ids: Sequence[int], *, lot_ids: Sequence[int] = ()) -> list[Lot]:
    """Return the lots that something is left of, and those with these ids, under the lock of their balances."""
    rows = fetch_all(
        """SELECT id, organization_id, kind, priority, expires_at, amount_nanos, remaining_nanos
            FROM billing_creditlot
            WHERE organization_id = ANY(%s) AND (remaining_nanos > 0 OR id = ANY(%s))
            ORDER BY organization_id, id""",
        [list(organization_ids), list(lot_ids)],
    )
    return [Lot(*row) for row in rows]


def allocate_ids(table: str, count: int) -> tuple[list[int], datetime]:
    """Return new ids in rising order, and Postgres' clock. Ids that are not used leave gaps, which mean nothing."""
    rows = fetch_all(
        "SELECT nextval(pg_get_serial_sequence(%s, 'id')), clock_timestamp() FROM generate_series(1, %s)",
        [table, count],
    )
    return sorted(row[0] for row in rows), rows[0][1]


TRANSACTION_COLUMNS = {
    "id": "bigint",
    "kind": "text",
    "idempotency_key": "text",
    "input_sha256": "bytea",
    "organization_id": "bigint",
    "actor": "text",
    "reason": "text",
    "created_at": "timestamptz",
    "entry_count": "smallint",
    "seal": "bytea",
}
ENTRY_COLUMNS = {
    "transaction_id": "bigint",
    "account_id": "bigint",
    "seq": "bigint",
    "amount_nanos": "bigint",
    "balance_after_nanos": "bigint",
}
LOT_COLUMNS = {
    "id": "bigint",
    "organization_id": "bigint",
    "kind": "text",
    "origin": "text",
    "amount_nanos": "bigint",
    "remaining_nanos": "bigint",
    "priority": "smallint",
    "expires_at": "timestamptz",
    "created_at": "timestamptz",
}
LOT_ENTRY_COLUMNS = {
    "lot_id": "bigint",
    "transaction_id": "bigint",
    "amount_nanos": "bigint",
    "remaining_after_nanos": "bigint",
}


def insert_transactions(rows: Sequence[Sequence[object]]) -> int:
    """Return how many were inserted: fewer than given when an idempotency key is taken."""
    inserted = insert_rows(
        "billing_ledgertransaction",
        TRANSACTION_COLUMNS,
        rows,
        tail="ON CONFLICT (idempotency_key) DO NOTHING RETURNING id",
    )
    return len(inserted)


def insert_entries(rows: Sequence[Sequence[object]]) -> None:
    insert_rows("billing_ledgerentry", ENTRY_COLUMNS, rows)


def insert_lots(rows: Sequence[Sequence[object]]) -> None:
    insert_rows("billing_creditlot", LOT_COLUMNS, rows)


def insert_lot_entries(rows: Sequence[Sequence[object]]) -> None:
    insert_rows("billing_creditlotentry", LOT_ENTRY_COLUMNS, rows)


def update_accounts(accounts: Sequence[Account]) -> None:
    run_rows(
        """UPDATE billing_ledgeraccount account SET balance_nanos = given.balance_nanos, last_seq = given.last_seq
            FROM {rows} WHERE account.id = given.account_id""",
        {"account_id": "bigint", "balance_nanos": "bigint", "last_seq": "bigint"},
        [(account.account_id, account.balance_nanos, account.last_seq) for account in accounts],
    )


def update_balances(balances: Sequence[tuple[int, Balance]]) -> None:
    run_rows(
        """UPDATE billing_organizationbalance balance
            SET posted_nanos = given.posted_nanos, version = given.version
            FROM {rows} WHERE balance.organization_id = given.organization_id""",
        {"organization_id": "bigint", "posted_nanos": "bigint", "version": "bigint"},
        [(organization_id, balance.posted_nanos, balance.version) for organization_id, balance in balances],
    )


def update_lots(lots: Sequence[Lot]) -> None:
    run_rows(
        """UPDATE billing_creditlot lot SET remaining_nanos = given.remaining_nanos
            FROM {rows} WHERE lot.id = given.lot_id""",
        {"lot_id": "bigint", "remaining_nanos": "bigint"},
        [(lot.lot_id, lot.remaining_nanos) for lot in lots],
    )


def mark_lots_expired(lot_ids: Sequence[int], *, at: datetime) -> None:
    fetch_all(
        "UPDATE billing_creditlot SET expired_at = %s WHERE id = ANY(%s) AND expired_at IS NULL", [at, list(lot_ids)]
    )
