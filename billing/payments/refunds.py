"""Operators pay a top-up back. The order to do so is written first, then the provider is asked, once for its key.

What is taken from the balance follows from what the provider says, as with any refund; see reversals.py.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from billing.ledger.statements import posted_nanos
from billing.models import PaymentBreak, PaymentMovement, PaymentRefund, TopUp
from billing.money import NANOS_PER_CENT, format_usd, say_usd
from billing.payments.breaks import note_break, resolve_break
from billing.payments.events import apply_event
from billing.payments.orders import MAX_KEY_CHARACTERS, lock_order
from billing.payments.provider import ChargeRefunded, PaymentProviderError, PaymentRefusedError
from billing.payments.providers import UnknownProviderError, find_provider
from billing.payments.reversals import gone_back_nanos, planned_reversal

# Providers remember a key for a day at least: until then the same refund is asked for again by itself.
RESUME_AFTER, RESUME_FOR = timedelta(minutes=1), timedelta(hours=20)
MAX_RESUMED_PER_ROUND = 20
MAX_REFUSED_CHARACTERS = 300
GIVEN_UP = "Given up: "
REFERENCE = "refund "  # Of the break: which refund has no answer.
BY_ITSELF = "payments"
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

    Raises InvalidPaymentRefundError, DisputedPaymentError, PaymentRefusedError, also for what was refused before; and
    PaymentProviderError, after which the refund stands, and is asked for again by itself or left to a person.
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
    if refund.done_at is None and not _take_up(refund):
        raise PaymentProviderError("A person decides about this refund: the provider does not list it.")
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

    What the provider's list does not have when its key may be forgotten is left to a person: asked for again by a key
    that is forgotten, it could be paid twice.
    """
    now = timezone.now()
    waiting = refunds_that_wait().filter(created_at__lt=now - RESUME_AFTER).exclude(pk__in=_left_to_a_person())
    done = 0
    for refund in waiting.select_related("top_up__organization").order_by("pk")[:MAX_RESUMED_PER_ROUND]:
        try:
            done += _take_up(refund)
        except (PaymentProviderError, PaymentRefusedError) as error:
            logger.warning("Refund %s of top-up %s: %s", refund.pk, refund.top_up_id, error)
    return done


def refunds_that_wait() -> QuerySet[PaymentRefund]:
    """Return the refunds of which nobody knows yet whether the provider has made them."""
    return PaymentRefund.objects.filter(done_at=None, refused="")


def complete_refund(refund: PaymentRefund) -> PaymentRefund:
    """Have the provider make a refund that waits, unless its list says that it has. Returns it as it is then.

    Raises PaymentRefusedError, PaymentProviderError; nothing is paid twice, however old the refund is.
    """
    if refund.done_at is None and not refund.refused:
        event = _find(refund)
        if event is None:
            _ask(refund)
        else:
            _note_done(refund, event)
    return refund


def give_up_refund(refund: PaymentRefund, *, reason: str, actor: str) -> PaymentRefund:
    """Let a refund be that the provider does not list. Returns it as it is then: the list may say that it was made.

    Raises PaymentProviderError where the provider cannot be asked, unless it is none of ours any more.
    """
    if not reason.strip():
        raise InvalidPaymentRefundError("Whoever gives a refund up says why.")
    try:
        event = _find(refund)
    except PaymentRefusedError:
        refund.refresh_from_db()
        return refund
    except PaymentProviderError as error:
        if not isinstance(error.__cause__, UnknownProviderError):
            raise
        event = None
    if event is not None:
        _note_done(refund, event)
    else:
        text = f"{GIVEN_UP}{reason.strip()}"[:MAX_REFUSED_CHARACTERS]
        if refunds_that_wait().filter(pk=refund.pk).update(refused=text):
            _close_break(refund, text, actor)
    refund.refresh_from_db()
    return refund


def _check(top_up: TopUp, amount_nanos: int) -> None:
    left = refundable_nanos(top_up)
    if not 0 < amount_nanos <= left:
        raise InvalidPaymentRefundError(
            f"{format_usd(amount_nanos)} USD cannot be paid back: {format_usd(left)} USD of it are left."
        )
    if amount_nanos % NANOS_PER_CENT:
        raise InvalidPaymentRefundError("A refund is in whole cents.")


def _take_up(refund: PaymentRefund) -> bool:
    """Have a refund made, and say whether it is; what may have been asked for before is looked for in the list first.

    Raises PaymentRefusedError, PaymentProviderError.
    """
    age = timezone.now() - refund.created_at
    event = _find(refund) if age >= RESUME_AFTER else None
    if event is not None:
        _note_done(refund, event)
    elif age < RESUME_FOR:
        _ask(refund)
    else:
        _leave_to_a_person(refund)
        return False
    return True


def _find(refund: PaymentRefund) -> ChargeRefunded | None:
    """Return what the provider's list says if the refund is in it. Raises PaymentProviderError, PaymentRefusedError."""
    top_up = refund.top_up
    with _refusals_of(refund):
        return find_provider(top_up.provider).find_refund(
            charge_id=top_up.charge_id, payment_id=top_up.payment_id, key=_key(refund)
        )


def _ask(refund: PaymentRefund) -> None:
    top_up = refund.top_up
    with _refusals_of(refund):
        event = find_provider(top_up.provider).refund(
            charge_id=top_up.charge_id,
            payment_id=top_up.payment_id,
            amount_nanos=refund.amount_nanos,
            key=_key(refund),
        )
    _note_done(refund, event)


def _key(refund: PaymentRefund) -> str:
    return f"{refund.top_up.reference.hex}-{refund.pk}"


@contextmanager
def _refusals_of(refund: PaymentRefund) -> Iterator[None]:
    """Keep with the refund that the provider said no; a provider that is gone gives no answer."""
    try:
        yield
    except UnknownProviderError as error:
        raise PaymentProviderError(str(error)) from error
    except PaymentRefusedError as error:
        text = str(error)[:MAX_REFUSED_CHARACTERS] or "refused"
        refunds_that_wait().filter(pk=refund.pk).update(refused=text)
        _close_break(refund, f"The provider said no: {text}", BY_ITSELF)
        raise


def _note_done(refund: PaymentRefund, event: ChargeRefunded) -> None:
    apply_event(event)
    PaymentRefund.objects.filter(pk=refund.pk, done_at=None).update(done_at=timezone.now())
    _close_break(refund, "The provider has paid it back.", BY_ITSELF)
    refund.refresh_from_db()


# --- What a person decides ------------------------------------------------------------------------------------------


def _leave_to_a_person(refund: PaymentRefund) -> None:
    top_up = refund.top_up
    note_break(
        PaymentBreak.Kind.UNANSWERED,
        top_up.provider,
        f"{REFERENCE}{refund.pk}",
        f"{top_up.provider} gave no answer to a refund of {say_usd(refund.amount_nanos)} of {top_up}, and does not list"
        " it. Look at the payment there; then ask for the refund again, or give it up, on the page of the top-up."
        " Until then nothing else of it can be paid back.",
        top_up,
        refund.amount_nanos,
    )


def _left_to_a_person() -> list[int]:
    kept = PaymentBreak.objects.filter(kind=PaymentBreak.Kind.UNANSWERED, resolved_at=None)
    return [int(reference.removeprefix(REFERENCE)) for reference in kept.values_list("reference", flat=True)]


def _close_break(refund: PaymentRefund, resolution: str, actor: str) -> None:
    kept = PaymentBreak.objects.filter(kind=PaymentBreak.Kind.UNANSWERED, reference=f"{REFERENCE}{refund.pk}")
    for row in kept.filter(provider=refund.top_up.provider, resolved_at=None):
        resolve_break(row, resolution=resolution, actor=actor)
