"""The book of record: the only module that changes balances, accounts, entries and lots, by one write path.

A Book is opened inside a database transaction. It locks, in this order and never in another: the balances of its
organizations by id, then their accounts and the system's by id. Rows exist before they are locked. Postings are
composed in memory under these locks, and Book.write() writes all of them with one statement for each table. Single
postings (post_transaction) and settlement, which posts for hundreds of organizations at once, go the same way.

One database transaction opens one Book: a second one would lock out of order.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import orjson
from django.db import connection, transaction

from accounts.models import Organization
from accounts.outbox import record_organization_change
from billing.ledger import rows
from billing.ledger.accounts import Account, AccountName, Balance
from billing.ledger.burn_order import PAID, Lot, plan_draws
from billing.ledger.seals import LotRow, Sealed, make_seal, microseconds, sealing_key
from billing.models import LedgerAccount, LedgerTransaction

DEFAULT_PRIORITY = 100
MAX_REASON_CHARACTERS = 500
TRANSACTION_TABLE = "billing_ledgertransaction"
LOT_TABLE = "billing_creditlot"


class LedgerError(Exception):
    """A posting that the book refuses; nothing of it was written."""


class IdempotencyConflictError(LedgerError):
    """The idempotency key was used before, for another input."""


class UnbalancedPostingError(LedgerError):
    """The entries do not sum to zero, or there are none."""


class LotOutOfBoundsError(LedgerError):
    """A lot would fall below zero or rise above its amount."""


class IdempotencyKeyTakenError(LedgerError):
    """Another transaction took the key while this one was composed; who catches this looks it up."""


def organization_account(kind: LedgerAccount.Kind, organization_id: int) -> AccountName:
    return AccountName(kind.value, organization_id)


def system_account(kind: LedgerAccount.Kind, shard: int, *, payment_provider: str = "") -> AccountName:
    """Name one of the system's accounts, kept once for each shard so that shards do not wait for each other."""
    return AccountName(kind.value, None, shard, payment_provider)


@dataclass(frozen=True, slots=True)
class Header:
    """What a ledger transaction says of itself. `organization_id` is None for the system's own affairs."""

    kind: LedgerTransaction.Kind
    idempotency_key: str
    input_sha256: bytes
    organization_id: int | None
    actor: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class PostedTransaction:
    """`is_new` is False when the same idempotency key had posted the same input before."""

    transaction: LedgerTransaction
    is_new: bool


@dataclass(frozen=True, slots=True)
class _LotDraft:
    lot: Lot
    origin: str
    created_at: datetime


class Posting:
    """One ledger transaction while it is composed. Every change of a lot changes the account of its kind with it."""

    def __init__(self, book: "Book", header: Header, transaction_id: int) -> None:
        self.book = book
        self.header = header
        self.transaction_id = transaction_id
        self.amounts: dict[AccountName, int] = {}
        self.lot_entries: list[tuple[int, int, int, int]] = []
        self.opened: list[_LotDraft] = []

    def add(self, account: AccountName, amount_nanos: int) -> None:
        """Add to an account that the book has locked; negative takes away."""
        self.amounts[account] = self.amounts.get(account, 0) + amount_nanos
        self.book.composed[account] = self.book.composed.get(account, 0) + amount_nanos

    def owed_nanos(self) -> int:
        """Return what the organization owes after all that the book is composed of so far, at or above zero."""
        receivable = self._own(LedgerAccount.Kind.RECEIVABLE)
        return -(self.book.accounts[receivable].balance_nanos + self.book.composed.get(receivable, 0))

    def move_lot(self, lot: Lot, amount_nanos: int) -> None:
        """Put into a lot, or draw from it when negative. Raises LotOutOfBoundsError."""
        if not amount_nanos:
            return
        if lot.organization_id != self.header.organization_id:
            raise LedgerError(f"Lot {lot.lot_id} belongs to another organization.")
        remaining = lot.remaining_nanos + amount_nanos
        if not 0 <= remaining <= lot.amount_nanos:
            raise LotOutOfBoundsError(f"Lot {lot.lot_id} cannot hold {remaining} of {lot.amount_nanos} nanos.")
        lot.remaining_nanos = remaining
        self.book.changed_lots[lot.lot_id] = lot
        self.lot_entries.append((lot.lot_id, self.transaction_id, amount_nanos, remaining))
        kind = LedgerAccount.Kind.PREPAID if lot.kind == PAID else LedgerAccount.Kind.PROMOTIONAL
        self.add(self._own(kind), amount_nanos)

    def open_lot(
        self,
        kind: str,
        amount_nanos: int,
        *,
        origin: str,
        priority: int = DEFAULT_PRIORITY,
        expires_at: datetime | None = None,
    ) -> Lot:
        """Add a lot that is full, and at once draw from it what the organization owes."""
        (lot_id,), _ = rows.allocate_ids(LOT_TABLE, 1)
        organization_id = self._organization_id()
        lot = Lot(lot_id, organization_id, kind, priority, expires_at, amount_nanos, 0)
        self.book.lots.setdefault(organization_id, []).append(lot)
        self.opened.append(_LotDraft(lot, origin, self.book.now))
        self.move_lot(lot, amount_nanos)
        cleared = min(self.owed_nanos(), amount_nanos)
        if cleared:
            self.move_lot(lot, -cleared)
            self.add(self._own(LedgerAccount.Kind.RECEIVABLE), cleared)
        return lot

    def charge(self, amount_nanos: int, *, as_of: datetime) -> None:
        """Take from the lots in burn order what they cover as of that moment; the rest is owed. Never refuses."""
        rest = amount_nanos
        for lot, drawn in plan_draws(self.book.lots.get(self._organization_id(), ()), amount_nanos, as_of=as_of):
            self.move_lot(lot, -drawn)
            rest -= drawn
        if rest:
            self.add(self._own(LedgerAccount.Kind.RECEIVABLE), -rest)

    def _organization_id(self) -> int:
        if self.header.organization_id is None:
            raise LedgerError("A posting of the system has no lots and no debts.")
        return self.header.organization_id

    def _own(self, kind: LedgerAccount.Kind) -> AccountName:
        return organization_account(kind, self._organization_id())


class Book:
    """Locked balances, accounts and lots, and what is about to be posted to them. Made by open()."""

    def __init__(self) -> None:
        self.balances: dict[int, Balance] = {}
        self.accounts: dict[AccountName, Account] = {}
        self.lots: dict[int, list[Lot]] = {}
        self.changed_lots: dict[int, Lot] = {}
        self.postings: list[Posting] = []
        self.composed: dict[AccountName, int] = {}  # What all postings together add to each account.
        self.now: datetime

    @classmethod
    def open(
        cls,
        organization_ids: Collection[int],
        *,
        system: Collection[AccountName] = (),
        postings: int = 1,
        lot_ids: Sequence[int] = (),
    ) -> Self:
        """Lock what these postings will touch, until the surrounding database transaction ends.

        `postings` is how many transactions may be composed: their ids are allocated under the locks, so that they rise
        with the `seq` of an organization's entries. `lot_ids` names lots to have although nothing is left of them.
        """
        if not connection.in_atomic_block:
            raise RuntimeError("A book is opened inside transaction.atomic().")
        wanted = sorted(set(organization_ids))
        book = cls()
        book.balances = rows.lock_balances(wanted)
        book.accounts = rows.lock_accounts(wanted, system)
        for lot in rows.read_lots(wanted, lot_ids=lot_ids):
            book.lots.setdefault(lot.organization_id, []).append(lot)
        book.free_ids, book.now = rows.allocate_ids(TRANSACTION_TABLE, max(1, postings))
        return book

    free_ids: list[int]

    def take_transaction_id(self) -> int:
        """Return the id that a posting will have, for rows that are written before it."""
        return self.free_ids.pop(0)

    def start(self, header: Header, *, transaction_id: int | None = None) -> Posting:
        """Begin a posting; it is written by write()."""
        posting = Posting(self, header, transaction_id or self.take_transaction_id())
        self.postings.append(posting)
        return posting

    def find_lot(self, organization_id: int, lot_id: int) -> Lot:
        """Return a lot of an organization that is locked here, also when nothing is left of it."""
        lots = self.lots.setdefault(organization_id, [])
        for lot in lots:
            if lot.lot_id == lot_id:
                return lot
        for lot in rows.read_lots([organization_id], lot_ids=[lot_id]):
            if lot.lot_id == lot_id:
                lots.append(lot)
                return lot
        raise LedgerError(f"Organization {organization_id} has no lot {lot_id}.")

    def touch_balance(self, organization_id: int) -> None:
        """Raise the version without a posting: what may be spent changed by the passing of time."""
        balance = self.balances[organization_id]
        balance.version += 1
        balance.is_changed = True

    def note_expiry(self, lots: Collection[Lot]) -> None:
        """Mark lots as noticed to be past their time; the first notice stays."""
        rows.mark_lots_expired([lot.lot_id for lot in lots], at=self.now)

    def write(self) -> None:
        """Write all postings. Raises UnbalancedPostingError, and IdempotencyKeyTakenError when a key is not free."""
        key = sealing_key() if self.postings else b""
        entries: list[tuple[int, int, int, int, int]] = []
        transactions = []
        for posting in self.postings:
            own = self._enter(posting)
            entries += own
            transactions.append(_transaction_row(posting, own, key))
        if rows.insert_transactions(transactions) != len(transactions):
            raise IdempotencyKeyTakenError
        drafts = [draft for posting in self.postings for draft in posting.opened]
        rows.insert_lots([_lot_row(draft) for draft in drafts])
        new = {draft.lot.lot_id for draft in drafts}
        rows.update_lots([lot for lot in self.changed_lots.values() if lot.lot_id not in new])
        rows.insert_lot_entries([entry for posting in self.postings for entry in posting.lot_entries])
        rows.insert_entries(entries)
        rows.update_accounts([account for account in self.accounts.values() if account.is_changed])
        rows.update_balances([item for item in self.balances.items() if item[1].is_changed])

    def _enter(self, posting: Posting) -> list[tuple[int, int, int, int, int]]:
        """Apply a posting to the accounts in memory and return its entries."""
        if sum(posting.amounts.values()) or not any(posting.amounts.values()):
            raise UnbalancedPostingError(f"{posting.header.idempotency_key}: {posting.amounts}")
        entries = []
        for name, amount_nanos in posting.amounts.items():
            if not amount_nanos:
                continue
            account = self.accounts[name]
            account.balance_nanos += amount_nanos
            account.last_seq += 1
            account.is_changed = True
            entries.append(
                (posting.transaction_id, account.account_id, account.last_seq, amount_nanos, account.balance_nanos)
            )
            if name.organization_id is not None:
                self.balances[name.organization_id].posted_nanos += amount_nanos
        if posting.header.organization_id is not None:
            self.touch_balance(posting.header.organization_id)
        return entries


def post_transaction(
    organization: Organization,
    *,
    kind: LedgerTransaction.Kind,
    idempotency_key: str,
    inputs: Mapping[str, object],
    actor: str,
    reason: str = "",
    system: Collection[AccountName],
    compose: Callable[[Posting], None],
    lot_ids: Sequence[int] = (),
) -> PostedTransaction:
    """Post one transaction of an organization, once for its idempotency key, and note that Redis must learn of it.

    `inputs` is what decides the effect: the same key with the same inputs returns the earlier transaction and posts
    nothing. `compose` fills the posting under the locks, and may look at `posting.book`.
    Raises IdempotencyConflictError for other inputs, and whatever `compose` raises; then nothing was written.
    """
    header = Header(
        kind, idempotency_key, input_digest(kind, organization.pk, inputs), organization.pk, actor, reason.strip()
    )
    try:
        with transaction.atomic():
            book = Book.open([organization.pk], system=system, lot_ids=lot_ids)
            earlier = find_transaction(header)
            if earlier is not None:
                return PostedTransaction(earlier, is_new=False)
            posting = book.start(header)
            compose(posting)
            book.write()
            record_organization_change(organization)
            return PostedTransaction(LedgerTransaction.objects.get(pk=posting.transaction_id), is_new=True)
    except IdempotencyKeyTakenError:
        # Another organization, whose balance is not locked here, took the key first.
        earlier = find_transaction(header)
        if earlier is None:
            raise
        return PostedTransaction(earlier, is_new=False)


def find_transaction(header: Header) -> LedgerTransaction | None:
    """Return the transaction with this key, or None. Raises IdempotencyConflictError when its input was another."""
    earlier = LedgerTransaction.objects.filter(idempotency_key=header.idempotency_key).first()
    if earlier is not None and bytes(earlier.input_sha256) != header.input_sha256:
        raise IdempotencyConflictError(
            f"The idempotency key {header.idempotency_key!r} was used before, for something else:"
            f" transaction {earlier.pk} of {earlier.created_at:%Y-%m-%d %H:%M} UTC."
        )
    return earlier


def input_digest(kind: LedgerTransaction.Kind, organization_id: int | None, inputs: Mapping[str, object]) -> bytes:
    """Return the SHA-256 that tells two inputs under one idempotency key apart."""
    named = {"kind": kind.value, "organization": organization_id, **inputs}
    return hashlib.sha256(orjson.dumps(named, option=orjson.OPT_SORT_KEYS, default=str)).digest()


def _transaction_row(
    posting: Posting, entries: Sequence[tuple[int, int, int, int, int]], key: bytes
) -> tuple[object, ...]:
    header = posting.header
    sealed = Sealed(
        posting.transaction_id,
        header.kind.value,
        header.idempotency_key,
        header.input_sha256,
        header.organization_id,
        header.actor,
        header.reason[:MAX_REASON_CHARACTERS],
        posting.book.now,
        entries=[entry[1:] for entry in entries],
        lot_entries=[(lot_id, amount, after) for lot_id, _, amount, after in posting.lot_entries],
        lots=[_sealed_lot(draft) for draft in posting.opened],
    )
    return (
        sealed.transaction_id,
        sealed.kind,
        sealed.idempotency_key,
        sealed.input_sha256,
        sealed.organization_id,
        sealed.actor,
        sealed.reason,
        sealed.created_at,
        len(entries),
        make_seal(key, sealed),
    )


def _sealed_lot(draft: _LotDraft) -> LotRow:
    lot = draft.lot
    expires = microseconds(lot.expires_at) if lot.expires_at else None
    return lot.lot_id, str(lot.kind), draft.origin, lot.priority, expires


def _lot_row(draft: _LotDraft) -> tuple[object, ...]:
    lot = draft.lot
    return (
        lot.lot_id,
        lot.organization_id,
        lot.kind,
        draft.origin,
        lot.amount_nanos,
        lot.remaining_nanos,
        lot.priority,
        lot.expires_at,
        draft.created_at,
    )
