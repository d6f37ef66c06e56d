"""Giving back what was charged, and corrections by hand. Both are new transactions: nothing that was posted changes.

A refund goes back the way the charge came, last drawn first: what was owed is owed no longer, and lots get back what
was drawn from them. Where later lots cleared a debt, they get it back. What finds no room, because a re-rating has
filled these lots, becomes promotional credit. So promotional credit never becomes cash.

A charge is a transaction for all requests of a batch, and with it the corrections of those that were orphans: what the
truth added was drawn by a transaction of its own, and goes back to the lots that paid for it.
"""

from dataclasses import dataclass
from uuid import UUID

from accounts.models import Organization
from billing.bulk_rows import fetch_all
from billing.corrections.rerating import current_costs
from billing.credit.top_ups import MAX_TOP_UP_NANOS
from billing.ledger.book import (
    PostedTransaction,
    Posting,
    organization_account,
    post_transaction,
    system_account,
)
from billing.models import CreditLot, LedgerAccount, LedgerTransaction, UsageCorrection, UsageRecord
from billing.money import format_usd
from billing.shards import shard_of

REFUND_ORIGIN = "refund"
ADJUSTMENT_ORIGIN = "adjustment"


@dataclass(frozen=True, slots=True)
class _Charge:
    """How a charge was paid for, and what refunds have given back of it. Lots in the order in which they were drawn."""

    organization_id: int
    transaction_id: int
    drawn: dict[int, int]
    returned: dict[int, int]
    owed_nanos: int
    refunded_nanos: int

    @property
    def owed_left_nanos(self) -> int:
        """What was owed at the charge and no refund has given back."""
        returned_to_lots = sum(nanos for lot_id, nanos in self.returned.items() if lot_id in self.drawn)
        return max(0, self.owed_nanos - (self.refunded_nanos - returned_to_lots))


class InvalidRefundError(ValueError):
    """The request was not billed to this organization, or more would be given back than was charged."""


class InvalidAdjustmentError(ValueError):
    """The amount is zero or absurd."""


def refund_usage(
    organization: Organization,
    *,
    request_id: UUID,
    reason: str,
    actor: str,
    idempotency_key: str,
    amount_nanos: int | None = None,
) -> PostedTransaction:
    """Give back what a request cost, or a part of it.

    Refunds of a request never exceed in sum what it cost, nor what it costs since a re-rating has lowered that.
    Without an amount it is all that it costs when this is posted; repeated, the same answer, whatever it costs by then.
    Raises InvalidRefundError, and IdempotencyConflictError for a key that was used with another amount.
    """
    record = UsageRecord.objects.filter(pk=request_id, organization_id=organization.pk).first()
    charge_id = charge_of(record) if record is not None else None
    if record is None or charge_id is None:
        raise InvalidRefundError(f"Nothing was charged to {organization} for request {request_id}.")
    revenue = system_account(LedgerAccount.Kind.REVENUE, shard_of(organization.pk))

    def compose(posting: Posting) -> None:
        refunded = _refunded_nanos(f"refund:{charge_id}:{request_id.hex}:%")
        refundable = refundable_nanos(record)
        amount = refundable if amount_nanos is None else amount_nanos
        if not 0 < amount <= refundable - refunded:
            raise InvalidRefundError(
                f"{format_usd(amount)} USD cannot be refunded: request {request_id} cost"
                f" {format_usd(refundable)} USD, of which {format_usd(refunded)} were refunded before."
            )
        posting.add(revenue, -amount)
        _put_back(posting, _read_charge(organization.pk, charge_id), amount)

    return post_transaction(
        organization,
        kind=LedgerTransaction.Kind.REFUND,
        idempotency_key=f"refund:{charge_id}:{request_id.hex}:{idempotency_key}",
        inputs={"request_id": request_id.hex, "amount_nanos": amount_nanos},
        actor=actor,
        reason=reason,
        system=[revenue],
        compose=compose,
    )


def adjust_balance(
    organization: Organization,
    *,
    amount_nanos: int,
    reason: str,
    actor: str,
    idempotency_key: str,
    lot_kind: CreditLot.Kind = CreditLot.Kind.PROMOTIONAL,
    kind: LedgerTransaction.Kind = LedgerTransaction.Kind.ADJUSTMENT,
) -> PostedTransaction:
    """Correct a balance by hand against revenue: above zero a new lot of `lot_kind`, below zero a charge.

    Never refuses for a low balance. Raises InvalidAdjustmentError, IdempotencyConflictError.
    """
    if not 0 < abs(amount_nanos) <= MAX_TOP_UP_NANOS:
        raise InvalidAdjustmentError(f"{format_usd(amount_nanos)} USD is not an amount to adjust by.")
    revenue = system_account(LedgerAccount.Kind.REVENUE, shard_of(organization.pk))

    def compose(posting: Posting) -> None:
        posting.add(revenue, -amount_nanos)
        if amount_nanos > 0:
            posting.open_lot(lot_kind, amount_nanos, origin=ADJUSTMENT_ORIGIN)
        else:
            posting.charge(-amount_nanos, as_of=posting.book.now)

    return post_transaction(
        organization,
        kind=kind,
        idempotency_key=idempotency_key,
        inputs={"amount_nanos": amount_nanos, "lot_kind": str(lot_kind)},
        actor=actor,
        reason=reason,
        system=[revenue],
        compose=compose,
    )


def _put_back(posting: Posting, charge: _Charge, amount_nanos: int) -> None:
    """Compose a refund: the part that was owed first, then the lots of the charge, last drawn first."""
    owed_part = min(amount_nanos, charge.owed_left_nanos)
    rest = amount_nanos - owed_part
    for lot_id, drawn_nanos in reversed(charge.drawn.items()):
        lot = posting.book.find_lot(charge.organization_id, lot_id)
        # A re-rating may have filled it: that goes to whichever lot was drawn last, not by requests.
        room = lot.amount_nanos - lot.remaining_nanos
        returned = min(rest, drawn_nanos - charge.returned.get(lot_id, 0), room)
        posting.move_lot(lot, returned)
        rest -= returned
    _put_back_debt(posting, charge, owed_part)
    if rest:
        posting.open_lot(CreditLot.Kind.PROMOTIONAL, rest, origin=REFUND_ORIGIN)


def _put_back_debt(posting: Posting, charge: _Charge, amount_nanos: int) -> None:
    """Cancel what is still owed; the rest was cleared by later lots, and these get it back, the latest first."""
    cancelled = min(amount_nanos, posting.owed_nanos())
    if cancelled:
        posting.add(organization_account(LedgerAccount.Kind.RECEIVABLE, charge.organization_id), cancelled)
    rest = amount_nanos - cancelled
    clearing = _read_clearing(charge) if rest else {}
    for lot_id, cleared_nanos in reversed(clearing.items()):
        lot = posting.book.find_lot(charge.organization_id, lot_id)
        returned = max(0, min(rest, cleared_nanos, lot.amount_nanos - lot.remaining_nanos))
        posting.move_lot(lot, returned)
        rest -= returned
    if rest:  # Their origin is no longer known, so they must not become cash.
        posting.open_lot(CreditLot.Kind.PROMOTIONAL, rest, origin=REFUND_ORIGIN)


def _read_charge(organization_id: int, transaction_id: int) -> _Charge:
    charging = [transaction_id, *_corrections_of(transaction_id)]
    drawn = fetch_all(
        """SELECT lot_id, -sum(amount_nanos)::bigint FROM billing_creditlotentry
            WHERE transaction_id = ANY(%s) GROUP BY lot_id HAVING sum(amount_nanos) < 0
            ORDER BY max(id) FILTER (WHERE amount_nanos < 0)""",
        [charging],
    )
    returned = fetch_all(
        """SELECT entry.lot_id, sum(entry.amount_nanos)::bigint
            FROM billing_creditlotentry entry JOIN billing_ledgertransaction refund ON refund.id = entry.transaction_id
            WHERE refund.idempotency_key LIKE %s GROUP BY entry.lot_id""",
        [f"refund:{transaction_id}:%"],
    )
    owed = fetch_all(
        """SELECT coalesce(-sum(entry.amount_nanos), 0)::bigint
            FROM billing_ledgerentry entry JOIN billing_ledgeraccount account ON account.id = entry.account_id
            WHERE entry.transaction_id = ANY(%s) AND account.kind = 'receivable'""",
        [charging],
    )
    return _Charge(
        organization_id=organization_id,
        transaction_id=transaction_id,
        drawn=dict(drawn),
        returned=dict(returned),
        owed_nanos=max(0, owed[0][0]),
        refunded_nanos=_refunded_nanos(f"refund:{transaction_id}:%"),
    )


def _read_clearing(charge: _Charge) -> dict[int, int]:
    """Return, by lot, what the lots that were opened since the charge have cleared of debts, in their order.

    A lot clears debts in the transaction that opens it, and never again. What refunds gave back to it, for whatever
    charge, is not given twice.
    """
    rows = fetch_all(
        """WITH refunded AS (
                SELECT entry.lot_id, entry.transaction_id, entry.amount_nanos
                FROM billing_ledgertransaction refund
                JOIN billing_creditlotentry entry ON entry.transaction_id = refund.id
                WHERE refund.organization_id = %(organization_id)s AND refund.kind = 'refund'
                  AND refund.id > %(charge_id)s)
            SELECT lot.id, (cleared.nanos - coalesce((SELECT sum(refunded.amount_nanos) FROM refunded
                    WHERE refunded.lot_id = lot.id AND refunded.transaction_id <> opening.transaction_id), 0))::bigint
            FROM billing_creditlot lot
            CROSS JOIN LATERAL (SELECT entry.transaction_id FROM billing_creditlotentry entry
                WHERE entry.lot_id = lot.id ORDER BY entry.id LIMIT 1) opening
            CROSS JOIN LATERAL (SELECT -sum(entry.amount_nanos) AS nanos FROM billing_creditlotentry entry
                WHERE entry.transaction_id = opening.transaction_id AND entry.lot_id = lot.id
                  AND entry.amount_nanos < 0) cleared
            WHERE lot.organization_id = %(organization_id)s AND opening.transaction_id > %(charge_id)s
              AND cleared.nanos > 0
            ORDER BY lot.id""",
        {"organization_id": charge.organization_id, "charge_id": charge.transaction_id},
    )
    return dict(rows)


def _corrections_of(transaction_id: int) -> list[int]:
    """Return the transactions that brought requests of this charge to their true cost."""
    rows = fetch_all(
        """SELECT correction.ledger_transaction_id
            FROM billing_usagerecord record JOIN billing_usagecorrection correction USING (request_id)
            WHERE record.ledger_transaction_id = %s AND correction.ledger_transaction_id IS NOT NULL""",
        [transaction_id],
    )
    return [row[0] for row in rows]


def charge_of(record: UsageRecord) -> int | None:
    """Return the transaction that charged for a request; None when nothing was charged.

    An orphan that cost nothing may have been charged for since, by its correction.
    """
    if record.ledger_transaction_id is not None:
        return record.ledger_transaction_id
    return UsageCorrection.objects.filter(pk=record.request_id).values_list("ledger_transaction_id", flat=True).first()


def refunded_nanos(record: UsageRecord) -> int:
    """Return what was given back of a request so far."""
    return _refunded_nanos(f"refund:{charge_of(record)}:{record.request_id.hex}:%")


def refundable_nanos(record: UsageRecord) -> int:
    """Return what a request costs as corrected and re-rated by now: refunds never exceed it in sum."""
    true = UsageCorrection.objects.filter(pk=record.request_id).first()
    cost = true.cost_after_nanos if true is not None else record.cost_nanos
    return min(cost, current_costs([record.request_id]).get(record.request_id, cost))


def _refunded_nanos(key_pattern: str) -> int:
    rows = fetch_all(
        """SELECT coalesce(-sum(entry.amount_nanos), 0)::bigint
            FROM billing_ledgertransaction refund
            JOIN billing_ledgerentry entry ON entry.transaction_id = refund.id
            JOIN billing_ledgeraccount account ON account.id = entry.account_id
            WHERE refund.idempotency_key LIKE %s AND account.kind = 'revenue'""",
        [key_pattern],
    )
    return int(rows[0][0])
