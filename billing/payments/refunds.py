"""Operators pay a top-up back. The order to do so is written first, then the provider is asked, once for its key.

What is taken from the balance follows from what the provider says, as with any refund; see reversals.py.
"""

import logging
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from billing.ledger.statements import posted_nanos
from billing.models import PaymentMovement, PaymentRefund, TopUp
from billing.money import NANOS_PER_CENT, format_usd
from billing.payments.events import apply_event
from billing.payments.orders import MAX_KEY_CHARACTERS, lock_order
from billing.payments.provider import PaymentProviderError, PaymentRefusedError
from billing.payments.providers import UnknownProviderError, find_provider
from billing.payments.reversals import gone_back_nanos, planned_reversal

# Providers remember a key for a day at least: until then the same refund may be asked for again.
RESUME_AFTER, RESUME_FOR = timedelta(minutes=1), timedelta(hours=20)
MAX_RESUMED_PER_ROUND = 20
MAX_REFUSED_CHARACTERS = 300
NO_ANSWER = (
    "The payment provider gave no answer in time. Where it has paid back all the same, it says so by itself, and what"
    " follows is posted then."
)
DISPUTED = (
    "This payment is disputed, and the provider has taken its funds. A refund would pay the card holder twice: once by"
    " the dispute, once by you."
)

logger = logging.getLogger(__name__)


class InvalidPaymentRefundError(ValueError):
    """It cannot be paid back, or not so much; the text says why."""


class DisputedPaymentError(InvalidPaymentRefundError):
    """Its funds are withdrawn by a dispute: whoever pays back all the same must say that they know."""


@dataclass(frozen=True, slots=True)
class RefundPlan:
    """What a refund would do, in nano-dollars: paid out by the provider, taken from the balance, the balance after."""

    amount_nanos: int
    reversed_nanos: int
    cash_nanos: int
    balance_after_nanos: int
    warning: str = ""

    @property
    def postings(self) -> list[tuple[str, int]]:
        """The ledger transaction that it would post, by account."""
        expense = self.reversed_nanos - self.cash_nanos
        rows = [("organization", -self.reversed_nanos), ("cash", self.cash_nanos), ("promotion_expense", expense)]
        return [(account, nanos) for account, nanos in rows if nanos]


def refundable_nanos(top_up: TopUp) -> int:
    """Return what the provider holds of a payment, by what it has told so far."""
    if top_up.paid_nanos is None:
        return 0
    return max(0, top_up.paid_nanos - gone_back_nanos(top_up.movements.all()))


def is_disputed(top_up: TopUp) -> bool:
    """Say whether a dispute has taken funds of the payment and not given them back."""
    kinds = PaymentMovement.Kind
    references = {
        kind: set(top_up.movements.filter(kind=kind).values_list("reference", flat=True))
        for kind in (kinds.DISPUTE_WITHDRAWN, kinds.DISPUTE_REINSTATED)
    }
    return bool(references[kinds.DISPUTE_WITHDRAWN] - references[kinds.DISPUTE_REINSTATED])


def plan_refund(top_up: TopUp, *, amount_nanos: int) -> RefundPlan:
    """Return what a refund would do, and ask nobody. Raises InvalidPaymentRefundError."""
    _check(top_up, amount_nanos)
    change = planned_reversal(top_up, more_nanos=amount_nanos)
    balance = posted_nanos(top_up.organization) - change.amount_nanos
    warning = DISPUTED if is_disputed(top_up) else ""
    return RefundPlan(amount_nanos, change.amount_nanos, change.cash_nanos, balance, warning)


def refund_top_up(
    top_up: TopUp,
    *,
    amount_nanos: int,
    reason: str,
    actor: str,
    idempotency_key: str,
    even_if_disputed: bool = False,
) -> PaymentRefund:
    """Pay a part of a top-up back, once for the key. `done_at` is set once the provider has said yes.

    Raises InvalidPaymentRefundError, DisputedPaymentError, PaymentRefusedError, also for what was refused before, or
    had no answer in time; and PaymentProviderError, after which the refund stands and is asked for again by itself.
    """
    refund = order_refund(
        top_up,
        amount_nanos=amount_nanos,
        reason=reason,
        actor=actor,
        idempotency_key=idempotency_key,
        even_if_disputed=even_if_disputed,
    )
    if refund.refused and refund.done_at is None:
        raise PaymentRefusedError(refund.refused)
    if refund.done_at is None:
        _ask(refund)
    return refund


def order_refund(
    top_up: TopUp,
    *,
    amount_nanos: int,
    reason: str,
    actor: str,
    idempotency_key: str,
    even_if_disputed: bool = False,
) -> PaymentRefund:
    """Write down that a part of a top-up is to be paid back, once for the key, and ask nobody yet.

    In the transaction of a decision it cannot be lost: resume_refunds() asks the provider where nobody else does.
    Raises InvalidPaymentRefundError, DisputedPaymentError.
    """
    if not reason.strip() or not 0 < len(idempotency_key) <= MAX_KEY_CHARACTERS:
        raise InvalidPaymentRefundError("A refund says why, and has an idempotency key.")
    with transaction.atomic():
        locked = lock_order(pk=top_up.pk)
        if locked is None:
            raise InvalidPaymentRefundError("There is no such top-up.")
        known = PaymentRefund.objects.filter(top_up=locked, idempotency_key=idempotency_key).first()
        if known is not None:
            if known.amount_nanos != amount_nanos:
                raise InvalidPaymentRefundError("This key was used for another refund.")
        else:
            waiting = locked.refunds.filter(done_at=None, refused="").first()
            if waiting is not None:
                raise InvalidPaymentRefundError(f"A refund of {format_usd(waiting.amount_nanos)} USD is under way.")
            _check(locked, amount_nanos)
            if is_disputed(locked) and not even_if_disputed:
                raise DisputedPaymentError(DISPUTED)
            known = PaymentRefund.objects.create(
                top_up=locked,
                amount_nanos=amount_nanos,
                idempotency_key=idempotency_key,
                reason=reason.strip()[:200],
                created_by=actor,
            )
    return known


def resume_refunds() -> int:
    """Ask again for the refunds that got no answer. Returns how many are done now.

    What has none in time is given up: the provider may have forgotten its key, and would pay back a second time.
    """
    now = timezone.now()
    unanswered = PaymentRefund.objects.filter(done_at=None, refused="", created_at__lt=now - RESUME_AFTER)
    unanswered.filter(created_at__lte=now - RESUME_FOR).update(refused=NO_ANSWER)
    waiting = unanswered.filter(created_at__gt=now - RESUME_FOR)
    done = 0
    for refund in waiting.select_related("top_up__organization").order_by("pk")[:MAX_RESUMED_PER_ROUND]:
        try:
            _ask(refund)
            done += 1
        except (PaymentProviderError, PaymentRefusedError) as error:
            logger.warning("Refund %s of top-up %s: %s", refund.pk, refund.top_up_id, error)
    return done


def _check(top_up: TopUp, amount_nanos: int) -> None:
    left = refundable_nanos(top_up)
    if not 0 < amount_nanos <= left:
        raise InvalidPaymentRefundError(
            f"{format_usd(amount_nanos)} USD cannot be paid back: {format_usd(left)} USD of it are left."
        )
    if amount_nanos % NANOS_PER_CENT:
        raise InvalidPaymentRefundError("A refund is in whole cents.")


def _ask(refund: PaymentRefund) -> None:
    if refund.created_at <= timezone.now() - RESUME_FOR:
        raise PaymentRefusedError(NO_ANSWER)
    top_up = refund.top_up
    try:
        event = find_provider(top_up.provider).refund(
            charge_id=top_up.charge_id,
            payment_id=top_up.payment_id,
            amount_nanos=refund.amount_nanos,
            key=f"{top_up.reference.hex}-{refund.pk}",
        )
    except UnknownProviderError as error:
        raise PaymentProviderError(str(error)) from error
    except PaymentRefusedError as error:
        PaymentRefund.objects.filter(pk=refund.pk).update(refused=str(error)[:MAX_REFUSED_CHARACTERS] or "refused")
        raise
    apply_event(event)
    PaymentRefund.objects.filter(pk=refund.pk, done_at=None).update(done_at=timezone.now())
    refund.refresh_from_db()
