"""What a payment provider says becomes true here, once: in one transaction, whatever its order and however often.

Nothing remembers which messages were seen. Each event is judged by its effect: an order has been credited or not, a
movement is there or not, and what is to be taken back is what all movements together say.
"""

from dataclasses import dataclass
from functools import singledispatch

from django.db import transaction
from django.db.models import Q

from billing.bulk_rows import fetch_all
from billing.models import PaymentBreak, PaymentMovement, TopUp
from billing.money import format_usd, nanos_to_cents
from billing.payments.automatic_settings import keep_card, note_failed, note_paid
from billing.payments.breaks import note_break
from billing.payments.orders import credit_order, fail_order, lock_order
from billing.payments.provider import (
    CardSaved,
    ChargeRefunded,
    ChargeSeen,
    CheckoutFailed,
    CheckoutPaid,
    CheckoutProcessing,
    DisputeFundsMoved,
    DisputeNoted,
    PaymentEvent,
    RefundFailed,
    WrongCurrency,
)
from billing.payments.reversals import settle_reversals

Kind = PaymentMovement.Kind
Reason = PaymentBreak.Kind


@dataclass(frozen=True, slots=True)
class Applied:
    """`changed` is False when the event said nothing new. `top_up` is None where it is of no order that we know."""

    top_up: TopUp | None
    changed: bool
    is_credited_now: bool = False


def apply_event(event: PaymentEvent) -> Applied:
    """Make true what the event says. When this returns, it is committed; when it raises, nothing of it is."""
    with transaction.atomic(durable=True):
        return _apply(event)


@singledispatch
def _apply(event: PaymentEvent) -> Applied:
    raise TypeError(f"{type(event).__name__} is not a payment event.")


@_apply.register
def _(event: CheckoutPaid) -> Applied:
    top_up = _find_order(event, amount_nanos=event.paid_nanos)
    if top_up is None:
        return Applied(None, changed=False)
    learned = _learn(
        top_up, payment_id=event.payment_id, charge_id=event.charge_id, payment_method=event.payment_method
    )
    credited = credit_order(top_up, event)
    if credited:
        note_paid(top_up)
    if credited and event.paid_nanos > top_up.amount_nanos:
        text = f"{format_usd(event.paid_nanos)} USD were paid, {format_usd(top_up.amount_nanos)} were ordered."
        note_break(Reason.OVERPAID, top_up.provider, top_up.reference.hex, text, top_up, event.paid_nanos)
    reversal = _adopt(top_up)
    return Applied(top_up, changed=credited or learned or reversal, is_credited_now=credited)


@_apply.register
def _(event: CheckoutProcessing) -> Applied:
    top_up = _find_order(event)
    if top_up is None:
        return Applied(None, changed=False)
    learned = _learn(top_up, payment_id=event.payment_id)
    is_news = top_up.state == TopUp.State.PENDING and top_up.processing_since is None
    if is_news:
        top_up.processing_since = event.occurred_at
        top_up.save(update_fields=["processing_since"])
    return Applied(top_up, changed=learned or is_news)


@_apply.register
def _(event: CheckoutFailed) -> Applied:
    top_up = _find_order(event)
    if top_up is None:
        return Applied(None, changed=False)
    if top_up.state in TopUp.CREDITED_STATES:
        # Either the failure is an old one that comes late, or money that was credited is not there: a person looks.
        text = f"The provider reports, on {event.occurred_at:%Y-%m-%d %H:%M} UTC: {event.reason}"
        reference = event.checkout_id or event.payment_id or event.reference.hex
        is_news = note_break(
            Reason.LATE_FAILURE, top_up.provider, reference, text, top_up, top_up.amount_nanos - top_up.reversed_nanos
        )
        return Applied(top_up, changed=is_news)
    failed = fail_order(top_up, reason=event.reason, at=event.occurred_at)
    if failed:
        note_failed(top_up)
    return Applied(top_up, changed=failed)


@_apply.register
def _(event: ChargeSeen) -> Applied:
    # It may come before the payment itself is told, when its order knows nothing of it but its own reference.
    top_up = _find_by_charge(event.provider, charge_id="", payment_id=event.payment_id)
    if top_up is None and event.reference is not None:
        top_up = lock_order(provider=event.provider, reference=event.reference)
    if top_up is None:
        return Applied(None, changed=False)
    if event.payment_id and top_up.payment_id not in ("", event.payment_id):
        return Applied(top_up, changed=False)
    learned = _learn(
        top_up, payment_id=event.payment_id, charge_id=event.charge_id, payment_method=event.payment_method
    )
    return Applied(top_up, changed=_adopt(top_up) or learned)


@_apply.register
def _(event: ChargeRefunded) -> Applied:
    # One row for each sum at each time that it was told: a later message of the same sum changes nothing.
    cents = nanos_to_cents(event.refunded_nanos)
    reference = f"{event.charge_id}:{cents}:{event.occurred_at.timestamp():.0f}"
    return _record(event, Kind.REFUND_TOTAL, reference, event.refunded_nanos)


@_apply.register
def _(event: RefundFailed) -> Applied:
    return _record(event, Kind.REFUND_FAILED, event.refund_id, event.amount_nanos)


@_apply.register
def _(event: DisputeFundsMoved) -> Applied:
    kind = Kind.DISPUTE_WITHDRAWN if event.is_withdrawal else Kind.DISPUTE_REINSTATED
    return _record(event, kind, event.dispute_id, event.amount_nanos)


@_apply.register
def _(event: DisputeNoted) -> Applied:
    top_up = _find_by_charge(event.provider, charge_id=event.charge_id, payment_id=event.payment_id)
    rows = fetch_all(
        """INSERT INTO billing_paymentdispute AS known
                (provider, dispute_id, top_up_id, status, status_as_of, opened_at)
            VALUES (%s, %s, %s, %s, %s, clock_timestamp())
            ON CONFLICT (provider, dispute_id) DO UPDATE SET status = EXCLUDED.status,
                status_as_of = EXCLUDED.status_as_of, top_up_id = coalesce(known.top_up_id, EXCLUDED.top_up_id)
            WHERE known.status_as_of <= EXCLUDED.status_as_of AND known.status <> EXCLUDED.status RETURNING id""",
        [event.provider, event.dispute_id, top_up.pk if top_up else None, event.status, event.occurred_at],
    )
    if top_up is None:
        note_break(
            Reason.UNATTRIBUTED,
            event.provider,
            event.dispute_id,
            f"A dispute of charge {event.charge_id}, which belongs to no order.",
        )
    return Applied(top_up, changed=bool(rows))


@_apply.register
def _(event: CardSaved) -> Applied:
    return Applied(None, changed=keep_card(event))


@_apply.register
def _(event: WrongCurrency) -> Applied:
    is_news = note_break(Reason.FOREIGN_CURRENCY, event.provider, event.reference, event.detail)
    return Applied(None, changed=is_news)


def _find_order(event: CheckoutPaid | CheckoutProcessing | CheckoutFailed, *, amount_nanos: int = 0) -> TopUp | None:
    """Lock the order that the event names, if it is this provider's and this checkout's; anything else is a break."""
    top_up = lock_order(reference=event.reference)
    what = event.checkout_id or event.payment_id or event.reference.hex
    if top_up is None:
        note_break(Reason.UNATTRIBUTED, event.provider, what, f"Names order {event.reference}, which there is not.")
        return None
    is_own = top_up.provider == event.provider and top_up.checkout_id in ("", event.checkout_id or top_up.checkout_id)
    if not is_own:
        text = f"Names order {event.reference}, which is of {top_up.provider}, checkout {top_up.checkout_id or 'none'}."
        note_break(Reason.MISMATCHED, event.provider, what, text, top_up, amount_nanos)
        return None
    if event.checkout_id and not top_up.checkout_id:
        # We died after the page was opened, before its id was kept.
        top_up.checkout_id = event.checkout_id
        top_up.save(update_fields=["checkout_id"])
    return top_up


def _find_by_charge(provider: str, *, charge_id: str, payment_id: str) -> TopUp | None:
    """Lock the order with this charge, or else with this payment, at this provider."""
    if charge_id and (top_up := lock_order(provider=provider, charge_id=charge_id)):
        return top_up
    return lock_order(provider=provider, payment_id=payment_id) if payment_id else None


def _learn(top_up: TopUp, *, payment_id: str = "", charge_id: str = "", payment_method: str = "") -> bool:
    """Keep what was not known of an order yet; what is known stays."""
    learned = [
        name
        for name, value in (("payment_id", payment_id), ("charge_id", charge_id), ("payment_method", payment_method))
        if value and not getattr(top_up, name)
    ]
    values = {"payment_id": payment_id, "charge_id": charge_id, "payment_method": payment_method[:100]}
    for name in learned:
        setattr(top_up, name, values[name])
    if learned:
        top_up.save(update_fields=learned)
    return bool(learned)


def _record(
    event: ChargeRefunded | RefundFailed | DisputeFundsMoved, kind: Kind, reference: str, nanos: int
) -> Applied:
    """Keep a movement, once, and post what follows from it, if its order is known and was credited."""
    top_up = _find_by_charge(event.provider, charge_id=event.charge_id, payment_id=event.payment_id)
    rows = fetch_all(
        """INSERT INTO billing_paymentmovement (top_up_id, provider, kind, reference, payment_id, charge_id,
                amount_nanos, occurred_at, recorded_at)
            VALUES (%s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp())
            ON CONFLICT (provider, kind, reference) DO NOTHING RETURNING id""",
        [
            top_up.pk if top_up else None,
            event.provider,
            kind.value,
            reference,
            event.payment_id,
            event.charge_id,
            nanos,
            event.occurred_at,
        ],
    )
    if top_up is None:
        if rows:
            text = f"{kind.label} of {format_usd(nanos)} USD: charge {event.charge_id} belongs to no order."
            note_break(Reason.UNATTRIBUTED, event.provider, reference, text, amount_nanos=nanos)
        return Applied(None, changed=bool(rows))
    _learn(top_up, payment_id=event.payment_id, charge_id=event.charge_id)
    return Applied(top_up, changed=_adopt(top_up) or bool(rows))


def _adopt(top_up: TopUp) -> bool:
    """Take on what came before the order was known by its charge, and post what all movements together say."""
    same = Q(pk=None)
    if top_up.charge_id:
        same |= Q(charge_id=top_up.charge_id)
    if top_up.payment_id:
        same |= Q(payment_id=top_up.payment_id)
    waiting = PaymentMovement.objects.filter(same, provider=top_up.provider, top_up=None)
    references = list(waiting.values_list("reference", flat=True))
    if references:
        waiting.update(top_up=top_up)
        PaymentBreak.objects.filter(
            provider=top_up.provider, kind=Reason.UNATTRIBUTED, reference__in=references, resolved_at=None
        ).update(
            top_up=top_up,
            resolved_at=top_up.paid_at or top_up.created_at,
            resolved_by="payments",
            resolution=f"It belongs to top-up {top_up.pk}.",
        )
    return settle_reversals(top_up) is not None or bool(references)


def adopt_waiting() -> int:
    """Give movements their orders where both came at one moment, and neither saw the other. Returns how many orders."""
    rows = fetch_all(
        """SELECT DISTINCT top_up.id FROM billing_paymentmovement movement JOIN billing_topup top_up
                ON top_up.provider = movement.provider
               AND (top_up.charge_id = nullif(movement.charge_id, '')
                    OR top_up.payment_id = nullif(movement.payment_id, ''))
            WHERE movement.top_up_id IS NULL ORDER BY top_up.id"""
    )
    for (top_up_id,) in rows:
        with transaction.atomic(durable=True):
            top_up = lock_order(pk=top_up_id)
            if top_up is not None:
                _adopt(top_up)
    return len(rows)
