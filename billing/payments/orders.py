"""Orders of credit: placed before anybody sees a payment page, and credited once, however often a payment is told."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from accounts.models import Organization
from billing.credit.top_ups import record_payment
from billing.models import TopUp
from billing.money import NANOS_PER_CENT, format_usd, parse_usd
from billing.payments.provider import CheckoutPaid, CheckoutRequest, PaymentProvider

MAX_ORDERS_PER_HOUR = 30  # Of an organization, from the console. A payment page costs the provider something.
MAX_KEY_CHARACTERS = 100
MAX_FAILURE_CHARACTERS = 300


class InvalidOrderError(ValueError):
    """The amount is out of bounds, or the key is unusable; the text says why, for whoever ordered."""


class TooManyOrdersError(InvalidOrderError):
    """The organization has placed MAX_ORDERS_PER_HOUR orders within an hour."""


class OrderConflictError(Exception):
    """The idempotency key was used before, for another order."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one top-up may be, in nano-dollars, both included."""

    min_nanos: int
    max_nanos: int

    @property
    def min_usd(self) -> str:
        return _with_thousands(self.min_nanos)

    @property
    def max_usd(self) -> str:
        return _with_thousands(self.max_nanos)

    def __str__(self) -> str:
        return f"from ${self.min_usd} to ${self.max_usd}"


def _with_thousands(nanos: int) -> str:
    whole, _, decimals = format_usd(nanos).partition(".")
    return f"{int(whole):,}.{decimals}"


def bounds() -> Bounds:
    return Bounds(parse_usd(settings.MIN_TOP_UP_USD), parse_usd(settings.MAX_TOP_UP_USD))


def place_order(
    organization: Organization,
    *,
    amount_nanos: int,
    provider: str,
    idempotency_key: str,
    actor: str,
    origin: TopUp.Origin = TopUp.Origin.CONSOLE,
) -> TopUp:
    """Return the pending order; the same one for the same key, whatever has become of it since.

    Raises InvalidOrderError, TooManyOrdersError, and OrderConflictError for a key that was used with another amount.
    """
    limits = bounds()
    if not limits.min_nanos <= amount_nanos <= limits.max_nanos:
        raise InvalidOrderError(f"A top-up is {limits}.")
    if amount_nanos % NANOS_PER_CENT:
        raise InvalidOrderError("A top-up is in whole cents.")
    if not 0 < len(idempotency_key) <= MAX_KEY_CHARACTERS:
        raise InvalidOrderError(f"An idempotency key has from 1 to {MAX_KEY_CHARACTERS} characters.")
    with transaction.atomic():
        # Orders of an organization are placed one after another, so that their number is what it says.
        Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        earlier = TopUp.objects.filter(organization=organization, idempotency_key=idempotency_key).first()
        if earlier is not None:
            is_same_kind = (earlier.origin == TopUp.Origin.AUTOMATIC) == (origin == TopUp.Origin.AUTOMATIC)
            if earlier.amount_nanos != amount_nanos or not is_same_kind:
                raise OrderConflictError(
                    f"This form was sent before, for {format_usd(earlier.amount_nanos)} USD. Open it again."
                )
            return earlier
        _check_number(organization, origin)
        return TopUp.objects.create(
            organization=organization,
            amount_nanos=amount_nanos,
            provider=provider,
            origin=origin,
            idempotency_key=idempotency_key,
            created_by=actor,
        )


def _check_number(organization: Organization, origin: TopUp.Origin) -> None:
    """Automatic top-ups have bounds of their own."""
    if origin == TopUp.Origin.AUTOMATIC:
        return
    orders = TopUp.objects.filter(organization=organization, created_at__gt=timezone.now() - timedelta(hours=1))
    if orders.exclude(origin=TopUp.Origin.AUTOMATIC).count() >= MAX_ORDERS_PER_HOUR:
        raise TooManyOrdersError(f"{MAX_ORDERS_PER_HOUR} top-ups were ordered within an hour. Try again later.")


def open_payment_page(
    top_up: TopUp, provider: PaymentProvider, *, customer_email: str, return_url: str, cancel_url: str
) -> str:
    """Return the address at which the order is paid. Opened again, it is the same page.

    Raises PaymentProviderError and PaymentRefusedError; the order stays pending, and this may be called again.
    """
    if top_up.checkout_url:
        return top_up.checkout_url
    checkout = provider.open_checkout(
        CheckoutRequest(
            reference=top_up.reference,
            amount_nanos=top_up.amount_nanos,
            description=describe(top_up),
            customer_email=customer_email,
            return_url=return_url,
            cancel_url=cancel_url,
        )
    )
    TopUp.objects.filter(pk=top_up.pk, checkout_url="", checkout_id__in=["", checkout.checkout_id]).update(
        checkout_id=checkout.checkout_id, checkout_url=checkout.url
    )
    return checkout.url


def describe(top_up: TopUp) -> str:
    return f"Top-up {top_up.pk}"


def credit_order(top_up: TopUp, paid: CheckoutPaid) -> bool:
    """Credit the ordered amount of an order that is locked, once. Returns False when it was credited before.

    What the provider took less than was ordered is a discount, which is ours to bear.
    """
    if top_up.ledger_transaction_id is not None:
        return False
    posted = record_payment(
        top_up.organization,
        payment_provider=top_up.provider,
        payment_id=top_up.reference.hex,
        amount_nanos=top_up.amount_nanos,
        discount_nanos=max(0, top_up.amount_nanos - paid.paid_nanos),
        reason=describe(top_up),
        actor=top_up.created_by,
    )
    top_up.state = TopUp.State.PAID
    top_up.ledger_transaction = posted.transaction
    top_up.paid_nanos = paid.paid_nanos
    top_up.paid_at = paid.occurred_at
    top_up.failure = ""
    top_up.failed_at = None
    top_up.save()
    return True


def fail_order(top_up: TopUp, *, reason: str, at: datetime) -> bool:
    """Mark a pending order that is locked as failed. Returns False when it is not pending any more."""
    if top_up.state != TopUp.State.PENDING:
        return False
    top_up.state = TopUp.State.FAILED
    top_up.failure = reason[:MAX_FAILURE_CHARACTERS]
    top_up.failed_at = at
    top_up.save()
    return True


def lock_order(**found_by: object) -> TopUp | None:
    """Lock the one order with these values until the transaction ends. An order is locked before any balance is."""
    return (
        TopUp.objects.select_for_update(no_key=True, of=("self",))
        .select_related("organization")
        .filter(**found_by)
        .first()
    )
