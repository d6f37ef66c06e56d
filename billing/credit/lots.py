"""Credit lots as a whole: what can be spent, and what happens to a lot whose time is over.

A lot pays for requests that were admitted before its `expires_at`, even when they settle later. From that moment on
admission leaves it out, by Redis' own clock. Its expiry is posted at most as far as the balance is free,
so that holds in flight stay covered; what is left then follows as they end.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from accounts.models import Organization
from accounts.outbox import record_organization_change
from billing.bulk_rows import fetch_all
from billing.ledger.accounts import Account
from billing.ledger.book import Book, Header, input_digest, organization_account, system_account
from billing.ledger.burn_order import PAID, Lot
from billing.models import CreditLot, LedgerAccount, LedgerTransaction
from billing.shards import shard_of
from billing.usage_stream import SpendableCredit

MAX_ORGANIZATIONS_PER_ROUND = 500
MAX_EXPIRIES_TOLD = 64
EXPIRY_ACTOR = "expiry"
# From the newest entry back to the last one before: an account may have millions, and the organization is locked.
OWED_SINCE = """
    SELECT max(balance_after_nanos) FROM billing_ledgerentry
    WHERE account_id = %(account_id)s AND seq >= (
        SELECT entry.seq
        FROM billing_ledgerentry entry JOIN billing_ledgertransaction ledger ON ledger.id = entry.transaction_id
        WHERE entry.account_id = %(account_id)s AND ledger.created_at < %(expires_at)s
        ORDER BY entry.seq DESC LIMIT 1)"""
Kind = LedgerAccount.Kind


@dataclass(frozen=True, slots=True)
class Expiry:
    """`expired_nanos` was posted; `left_nanos` remains in lots past their time, for holds in flight."""

    expired_nanos: int
    left_nanos: int


def spendable_credit(organization_ids: Collection[int], *, now: datetime | None = None) -> dict[int, tuple[int, int]]:
    """Return (credit_nanos, version) by organization: the posted balance without lots past their expiry.

    An organization that nothing was ever posted to is missing. Under the lock of a posting it is exact as of `version`.
    """
    balances = read_spendable_credit(organization_ids, now=now)
    return {credit.organization_id: (credit.credit_nanos, credit.version) for credit in balances.values()}


def read_spendable_credit(
    organization_ids: Collection[int], *, now: datetime | None = None
) -> dict[int, SpendableCredit]:
    """Return what spendable_credit() does, with the expiries to come: Redis then counts no lot beyond its last moment.

    A lot ends at the first whole millisecond at or after its expiry.
    """
    rows = fetch_all(
        """SELECT balance.organization_id, balance.posted_nanos - coalesce(lots.over, 0), balance.version, lots.coming
            FROM billing_organizationbalance balance
            LEFT JOIN LATERAL (
                SELECT sum(nanos) FILTER (WHERE expires_at <= now.moment) AS over,
                    array_agg(ARRAY[ceil(extract(epoch FROM expires_at) * 1000)::bigint, nanos] ORDER BY expires_at)
                        FILTER (WHERE expires_at > now.moment) AS coming
                FROM (
                    SELECT lot.expires_at, sum(lot.remaining_nanos)::bigint AS nanos FROM billing_creditlot lot
                    WHERE lot.organization_id = balance.organization_id
                      AND lot.remaining_nanos > 0 AND lot.expires_at IS NOT NULL GROUP BY lot.expires_at
                ) lot, (SELECT coalesce(%s::timestamptz, clock_timestamp()) AS moment) now
            ) lots ON true
            WHERE balance.organization_id = ANY(%s)""",
        [now, list(organization_ids)],
    )
    return {row[0]: SpendableCredit(row[0], int(row[1]), row[2], _expiries(row[3] or [])) for row in rows}


def _expiries(coming: Sequence[Sequence[int]]) -> str:
    """Return the expiries as Redis is told them. What is beyond the first few counts as ending with the last of them:
    long before that the first has ended, and Redis is told again."""
    told = [(at, nanos) for at, nanos in coming[:MAX_EXPIRIES_TOLD]]
    beyond = sum(nanos for _, nanos in coming[MAX_EXPIRIES_TOLD:])
    if beyond:
        told[-1] = (told[-1][0], told[-1][1] + beyond)
    return " ".join(f"{at}:{nanos}" for at, nanos in told)


def organizations_with_expired_lots(
    *, now: datetime | None = None, limit: int = MAX_ORGANIZATIONS_PER_ROUND
) -> list[Organization]:
    """Return the organizations that have something left in lots past their time, at most `limit`."""
    ids = (
        CreditLot.objects.filter(remaining_nanos__gt=0, expires_at__lte=now or timezone.now())
        .order_by("organization_id")
        .values_list("organization_id", flat=True)
        .distinct()[:limit]
    )
    return list(Organization.objects.filter(pk__in=list(ids)).order_by("pk"))


def expire_lots(organization: Organization, *, available_nanos: int, now: datetime | None = None) -> Expiry:
    """Post the expiry of lots whose time is over, in burn order, each as a transaction of its own.

    `available_nanos` is what is free of the balance: posted balance - unsettled - held, without the credit limit. No
    more than that and what is owed expires now. What a lot should have paid while it was valid it pays first. Paid
    credit goes to breakage, promotional credit back to promotion expense. Admission learns of the lower credit
    also when nothing could be posted yet. Doing it again posts only what is left.
    """
    now = now or timezone.now()
    shard = shard_of(organization.pk)
    system = [system_account(kind, shard) for kind in (Kind.BREAKAGE, Kind.PROMOTION_EXPENSE)]
    with transaction.atomic():
        due = CreditLot.objects.filter(organization=organization, remaining_nanos__gt=0, expires_at__lte=now)
        book = Book.open([organization.pk], system=system, postings=due.count())
        lots = [lot for lot in book.lots.get(organization.pk, ()) if lot.expires_at and lot.expires_at <= now]
        unnoticed = set(due.filter(expired_at=None).values_list("pk", flat=True))
        receivable = book.accounts[organization_account(Kind.RECEIVABLE, organization.pk)]
        # A debt of other requests keeps no lot: lots pay for nothing that was admitted after their expiry.
        free = min(available_nanos, book.balances[organization.pk].posted_nanos) - receivable.balance_nanos
        expired = cleared = 0
        for lot in sorted(lots, key=lambda lot: lot.burn_key):
            amount = min(lot.remaining_nanos, free - expired - cleared)
            if amount > 0 and book.free_ids:
                owed = min(amount, _owed_since(receivable, lot) - cleared) if receivable.balance_nanos < 0 else 0
                _post_expiry(book, lot, amount, shard, owed_nanos=max(0, owed))
                cleared += max(0, owed)
                expired += amount - max(0, owed)
        if not book.postings and not unnoticed.intersection(lot.lot_id for lot in lots):
            return Expiry(0, sum(lot.remaining_nanos for lot in lots))
        if not book.postings:
            book.touch_balance(organization.pk)
        book.note_expiry(lots)
        book.write()
        record_organization_change(organization)
        return Expiry(expired, sum(lot.remaining_nanos for lot in lots))


def _owed_since(receivable: Account, lot: Lot) -> int:
    """Return what was owed when the lot ended, and has been owed ever since, in nano-dollars.

    A lot that is valid pays what is owed, so that there is none, but for what clocks that ran ahead have kept from it.
    """
    rows = fetch_all(OWED_SINCE, {"account_id": receivable.account_id, "expires_at": lot.expires_at})
    return max(0, -(rows[0][0] or 0))


def _post_expiry(book: Book, lot: Lot, amount_nanos: int, shard: int, *, owed_nanos: int) -> None:
    """Take `amount_nanos` from the lot: first for what it should have paid, the rest expires."""
    # What is left of the lot, read under the lock, makes a second round post nothing: each round has a key of its own.
    transaction_id = book.take_transaction_id()
    kind = LedgerTransaction.Kind.EXPIRY
    digest = input_digest(kind, lot.organization_id, {"lot": lot.lot_id, "amount_nanos": amount_nanos})
    key = f"expiry:{lot.lot_id}:{transaction_id}"
    header = Header(kind, key, digest, lot.organization_id, EXPIRY_ACTOR, f"Lot {lot.lot_id} expired")
    posting = book.start(header, transaction_id=transaction_id)
    posting.move_lot(lot, -amount_nanos)
    account = Kind.BREAKAGE if lot.kind == PAID else Kind.PROMOTION_EXPENSE
    posting.add(organization_account(Kind.RECEIVABLE, lot.organization_id), owed_nanos)
    posting.add(system_account(account, shard), amount_nanos - owed_nanos)
