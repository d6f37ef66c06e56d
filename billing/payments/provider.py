"""What a payment provider is to us: a few calls, and events that say what became of the money. Pure.

Whatever a provider tells, by webhook or when asked, becomes one of these events, and `events.apply_event` is the one
place that they change anything in. Amounts are nano-dollars: an adapter reads the currency and refuses all but USD.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

MAX_PROVIDER_SECONDS = 10.0  # One call of a provider, in all its tries.


class PaymentProviderError(Exception):
    """The provider could not be asked, or answered nonsense. Nothing is known of what it did; asking again is safe."""


class PaymentRefusedError(Exception):
    """The provider said no; the text says why, for whoever asked."""


class CardDeclinedError(PaymentRefusedError):
    """The customer's bank said no to a payment that the customer was not there for."""


class WebhookRefusedError(Exception):
    """The message is not the provider's: a wrong or old signature, or no event."""


@dataclass(frozen=True, slots=True)
class CheckoutRequest:
    """What a payment page is opened for. The customer comes back to `return_url`, or `cancel_url` without paying."""

    reference: UUID
    amount_nanos: int
    description: str
    customer_email: str
    return_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True)
class Checkout:
    checkout_id: str
    url: str


@dataclass(frozen=True, slots=True)
class SavedCard:
    """A payment method that may be charged without its owner. `label` is what people recognize it by."""

    customer_id: str
    method_id: str
    label: str


@dataclass(frozen=True, slots=True)
class CheckoutPaid:
    """The provider has the money. `paid_nanos` is what it took: a discount may have made it less than was ordered."""

    provider: str
    reference: UUID
    paid_nanos: int
    occurred_at: datetime
    checkout_id: str = ""
    payment_id: str = ""
    charge_id: str = ""
    payment_method: str = ""


@dataclass(frozen=True, slots=True)
class CheckoutProcessing:
    """The customer has done their part; whether the money comes is told later, by CheckoutPaid or CheckoutFailed."""

    provider: str
    reference: UUID
    occurred_at: datetime
    checkout_id: str = ""
    payment_id: str = ""


@dataclass(frozen=True, slots=True)
class CheckoutFailed:
    """No money comes of it. `reason` is for the customer."""

    provider: str
    reference: UUID
    reason: str
    occurred_at: datetime
    checkout_id: str = ""
    payment_id: str = ""


@dataclass(frozen=True, slots=True)
class ChargeSeen:
    """A payment has this charge, by which disputes will name it."""

    provider: str
    payment_id: str
    charge_id: str
    occurred_at: datetime
    payment_method: str = ""
    reference: UUID | None = None


@dataclass(frozen=True, slots=True)
class ChargeRefunded:
    """`refunded_nanos` was paid back of the charge in all, by all its refunds so far."""

    provider: str
    charge_id: str
    payment_id: str
    refunded_nanos: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class RefundFailed:
    """A refund that was counted before did not arrive: the money is ours again."""

    provider: str
    refund_id: str
    charge_id: str
    payment_id: str
    amount_nanos: int
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class DisputeNoted:
    """A dispute was opened, changed or closed: information, which moves no money."""

    provider: str
    dispute_id: str
    charge_id: str
    payment_id: str
    status: str
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class DisputeFundsMoved:
    """The provider took the money of a dispute, or gave it back (`is_withdrawal` False)."""

    provider: str
    dispute_id: str
    charge_id: str
    payment_id: str
    amount_nanos: int
    is_withdrawal: bool
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class CardSaved:
    """A customer kept a card for automatic top-ups of the organization whose settings have this reference."""

    provider: str
    reference: UUID
    card: SavedCard
    occurred_at: datetime


@dataclass(frozen=True, slots=True)
class WrongCurrency:
    """The provider moved money in a currency that we have no amounts of; it is never counted as dollars."""

    provider: str
    reference: str
    detail: str
    occurred_at: datetime


PaymentEvent = (
    CheckoutPaid
    | CheckoutProcessing
    | CheckoutFailed
    | ChargeSeen
    | ChargeRefunded
    | RefundFailed
    | DisputeNoted
    | DisputeFundsMoved
    | CardSaved
    | WrongCurrency
)


class PaymentProvider(Protocol):
    """One provider. Every call ends within MAX_PROVIDER_SECONDS, and raises PaymentProviderError where it did not work.

    A call that makes something takes our own reference or key, and makes it once for that.
    """

    name: str

    def open_checkout(self, request: CheckoutRequest) -> Checkout:
        """Open a page that takes one payment; the same page for the same reference. Raises PaymentRefusedError."""

    def read_checkout(self, *, reference: UUID, checkout_id: str, payment_id: str) -> Sequence[PaymentEvent]:
        """Return what the provider now says of an order: of its payment, its refunds and its disputes."""

    def list_payments(self, start: datetime, end: datetime) -> Iterator[CheckoutPaid]:
        """Yield the payments that the provider made from `start` on and before `end`."""

    def refund(self, *, charge_id: str, payment_id: str, amount_nanos: int, key: str) -> ChargeRefunded:
        """Pay back a part of a charge, once for `key`. Raises PaymentRefusedError."""

    def find_refund(self, *, charge_id: str, payment_id: str, key: str) -> ChargeRefunded | None:
        """Return what was paid back by now if the provider's list has the refund of this key, or None if it has not.

        Keys are forgotten after a day; the list is not. Raises PaymentRefusedError when that refund has failed.
        """

    def open_card_page(self, request: CheckoutRequest, *, customer_id: str) -> Checkout:
        """Open a page on which a customer keeps a card; `amount_nanos` is 0. CardSaved tells of it."""

    def charge_card(self, request: CheckoutRequest, card: SavedCard) -> Sequence[PaymentEvent]:
        """Charge a saved card, once for the reference. Raises CardDeclinedError."""

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> Sequence[PaymentEvent]:
        """Return the events of a signed message; none when it is of a kind that we need not know.

        Raises WebhookRefusedError, and PaymentProviderError when the message cannot be understood without asking.
        """
