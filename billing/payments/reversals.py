"""Taking back what was credited, when the money went back: by refunds and disputes together, once.

How much of a charge has gone back is a function of everything that the provider has said of it (`PaymentMovement`), in
whichever order it came. Each time, only the difference to what was taken back before is posted. It is taken from the
order's own lot first, then from the others in burn order, and the rest is owed: a debt is never floored away.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from django.db.models import Sum
from django.utils import timezone

from billing.bulk_rows import fetch_all
from billing.ledger.accounts import AccountName
from billing.ledger.book import Posting, organization_account, post_transaction, system_account
from billing.ledger.burn_order import PAID
from billing.models import CreditLotEntry, LedgerAccount, LedgerTransaction, PaymentMovement, PaymentReversal, TopUp
from billing.shards import shard_of

Kind = PaymentMovement.Kind
REVERSAL_ACTOR = "payments"


@dataclass(frozen=True, slots=True)
class Reversed:
    """What is taken back of an order: from the balance, and how much of that the provider paid out."""

    amount_nanos: int
    cash_nanos: int

    def __sub__(self, other: "Reversed") -> "Reversed":
        return Reversed(self.amount_nanos - other.amount_nanos, self.cash_nanos - other.cash_nanos)


def gone_back_nanos(movements: Iterable[PaymentMovement]) -> int:
    """Return how much of a charge its provider has paid out again, by all that is known of it.

    Refunds are told as their sum so far, so the latest such sum counts, less refunds that failed after it. A dispute
    counts while its funds are withdrawn and not reinstated; that it was opened or closed moves nothing.
    """
    rows = list(movements)
    totals = [row for row in rows if row.kind == Kind.REFUND_TOTAL]
    refunded = 0
    if totals:
        latest = max(totals, key=lambda row: (row.occurred_at, row.amount_nanos))
        failed = (
            row.amount_nanos for row in rows if row.kind == Kind.REFUND_FAILED and row.occurred_at > latest.occurred_at
        )
        refunded = max(0, latest.amount_nanos - sum(failed))
    by_dispute: dict[str, int] = {}
    for row in rows:
        sign = {Kind.DISPUTE_WITHDRAWN: 1, Kind.DISPUTE_REINSTATED: -1}.get(Kind(row.kind), 0)
        by_dispute[row.reference] = by_dispute.get(row.reference, 0) + sign * row.amount_nanos
    return refunded + sum(max(0, nanos) for nanos in by_dispute.values())


def reversal_of(*, amount_nanos: int, paid_nanos: int, gone_back_nanos: int) -> Reversed:
    """Return what is to be taken back of an order. Never more than was credited.

    Where a discount made the payment smaller than the order, credit goes back in proportion, rounded down, and whole
    with the whole payment. What was paid beyond the order was never credited, and goes back first.
    """
    cash_in = min(paid_nanos, amount_nanos)
    cash_out = min(max(0, gone_back_nanos - (paid_nanos - cash_in)), cash_in)
    if not cash_out:
        return Reversed(0, 0)
    return Reversed(amount_nanos * cash_out // cash_in, cash_out)


def settle_reversals(top_up: TopUp) -> PaymentReversal | None:
    """Post the difference between what is to be taken back of a locked order and what was; None when there is none."""
    if top_up.ledger_transaction_id is None or top_up.paid_nanos is None:
        return None
    change = planned_reversal(top_up)
    if not change.amount_nanos:
        return None
    return _post(top_up, change, reason=_reason(top_up, change))


def planned_reversal(top_up: TopUp, *, more_nanos: int = 0) -> Reversed:
    """Return what would be posted now, if the provider had paid out `more_nanos` more than it has said."""
    target = reversal_of(
        amount_nanos=top_up.amount_nanos,
        paid_nanos=top_up.paid_nanos or 0,
        gone_back_nanos=gone_back_nanos(top_up.movements.all()) + more_nanos,
    )
    cash_before = top_up.reversals.aggregate(nanos=Sum("cash_nanos"))["nanos"] or 0
    return target - Reversed(top_up.reversed_nanos, cash_before)


def _reason(top_up: TopUp, change: Reversed) -> str:
    kinds = {row.kind for row in top_up.movements.all()}
    if change.amount_nanos < 0:
        what = "dispute ended" if Kind.DISPUTE_REINSTATED in kinds else "refund failed"
        return f"Top-up {top_up.pk}: {what}, the money came back"
    words = ((Kind.REFUND_TOTAL, "refunded"), (Kind.DISPUTE_WITHDRAWN, "disputed"))
    return f"Top-up {top_up.pk} {' and '.join(word for kind, word in words if kind in kinds)}"


def _post(top_up: TopUp, change: Reversed, *, reason: str) -> PaymentReversal:
    number = top_up.reversals.count() + 1
    shard = shard_of(top_up.organization_id)
    cash = system_account(LedgerAccount.Kind.CASH, shard, payment_provider=top_up.provider)
    expense = system_account(LedgerAccount.Kind.PROMOTION_EXPENSE, shard)
    lot_ids = _lots_of(top_up)

    def compose(posting: Posting) -> None:
        if change.amount_nanos > 0:
            _take(posting, top_up, change.amount_nanos, lot_ids)
        else:
            _give_back(posting, top_up, -change.amount_nanos)
        _add_system(posting, cash, expense, change)

    posted = post_transaction(
        top_up.organization,
        kind=LedgerTransaction.Kind.REVERSAL,
        idempotency_key=f"reversal:{top_up.pk}:{number}",
        inputs={"top_up": top_up.pk, "amount_nanos": change.amount_nanos},
        actor=REVERSAL_ACTOR,
        reason=reason,
        system=[cash, expense],
        compose=compose,
        lot_ids=lot_ids,
    )
    reversal = PaymentReversal.objects.create(
        top_up=top_up,
        number=number,
        ledger_transaction=posted.transaction,
        amount_nanos=change.amount_nanos,
        cash_nanos=change.cash_nanos,
        reason=reason,
        created_at=timezone.now(),
    )
    top_up.reversed_nanos += change.amount_nanos
    is_whole = top_up.reversed_nanos == top_up.amount_nanos
    top_up.state = TopUp.State.REFUNDED if is_whole else TopUp.State.PAID
    top_up.save(update_fields=["reversed_nanos", "state"])
    return reversal


def _add_system(posting: Posting, cash: AccountName, expense: AccountName, change: Reversed) -> None:
    posting.add(cash, change.cash_nanos)
    posting.add(expense, change.amount_nanos - change.cash_nanos)


def _take(posting: Posting, top_up: TopUp, amount_nanos: int, lot_ids: list[int]) -> None:
    rest = amount_nanos
    for lot_id in lot_ids:
        lot = posting.book.find_lot(top_up.organization_id, lot_id)
        taken = min(rest, lot.remaining_nanos)
        posting.move_lot(lot, -taken)
        rest -= taken
    if rest:
        posting.charge(rest, as_of=posting.book.now)


def _give_back(posting: Posting, top_up: TopUp, amount_nanos: int) -> None:
    """What is owed is owed no longer; lots get back what reversals of the order drew from them, last drawn first."""
    cancelled = min(amount_nanos, posting.owed_nanos())
    if cancelled:
        posting.add(organization_account(LedgerAccount.Kind.RECEIVABLE, top_up.organization_id), cancelled)
    rest = amount_nanos - cancelled
    drawn = fetch_all(
        """SELECT entry.lot_id, -sum(entry.amount_nanos)::bigint FROM billing_creditlotentry entry
            JOIN billing_paymentreversal reversal ON reversal.ledger_transaction_id = entry.transaction_id
            WHERE reversal.top_up_id = %s GROUP BY entry.lot_id
            HAVING sum(entry.amount_nanos) < 0 ORDER BY max(entry.id) DESC""",
        [top_up.pk],
    )
    for lot_id, drawn_nanos in drawn:
        lot = posting.book.find_lot(top_up.organization_id, lot_id)
        returned = min(rest, drawn_nanos, lot.amount_nanos - lot.remaining_nanos)
        posting.move_lot(lot, returned)
        rest -= returned
    if rest:
        posting.open_lot(PAID, rest, origin=f"Top-up {top_up.pk}, money came back")


def _lots_of(top_up: TopUp) -> list[int]:
    """Return the lots that the order's own money is in: its credit opened one, and money that came back may others."""
    return list(
        CreditLotEntry.objects.filter(
            transaction__in=[
                top_up.ledger_transaction_id,
                *top_up.reversals.values_list("ledger_transaction", flat=True),
            ],
            amount_nanos__gt=0,
            lot__kind=PAID,
        )
        .order_by("lot_id")
        .values_list("lot_id", flat=True)
        .distinct()
    )
