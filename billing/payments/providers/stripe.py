"""Stripe, through its own library. docs/payments.md says which events to subscribe to and what was run against what.

The facts about Stripe that this file relies on are those of its API reference (docs.stripe.com/api): a Checkout
Session is `unpaid` while a bank debit is under way and `no_payment_required` when nothing is due; `amount_refunded` of
a Charge is the sum of its refunds; a Dispute names its Charge and no customer, and has up to two balance transactions;
a Charge starts with the metadata of its PaymentIntent. Amounts in USD are whole cents.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from uuid import UUID

import stripe
from django.utils import timezone

from billing.money import CurrencyError, cents_to_nanos, nanos_to_cents, read_currency
from billing.payments.provider import (
    CardDeclinedError,
    CardSaved,
    ChargeRefunded,
    ChargeSeen,
    Checkout,
    CheckoutFailed,
    CheckoutPaid,
    CheckoutProcessing,
    CheckoutRequest,
    DisputeFundsMoved,
    DisputeNoted,
    PaymentEvent,
    PaymentProviderError,
    PaymentRefusedError,
    RefundFailed,
    SavedCard,
    WebhookRefusedError,
    WrongCurrency,
)

NAME = "stripe"
SIGNATURE_HEADER = "stripe-signature"
CONNECT_SECONDS, READ_SECONDS = 3.0, 7.0  # Together MAX_PROVIDER_SECONDS. Who calls may call again; nothing is retried.
PAGE_ROWS = 100
EXPIRED = "The payment page was left without paying."
BOUNCED = "The bank did not pay."
DECLINED = "The card was declined."
AUTOMATIC = "automatic"
Fields = dict[str, Any]
Answer = TypeVar("Answer")


class StripeProvider:
    name = NAME

    def __init__(self, secret_key: str, webhook_secret: str, *, api_url: str = "") -> None:
        if not webhook_secret or not secret_key:
            raise ValueError("Stripe needs its secret key, and a webhook secret: an empty one would let everybody in.")
        self._webhook_secret = webhook_secret
        self._client = stripe.StripeClient(
            secret_key,
            base_addresses={"api": api_url} if api_url else None,
            http_client=stripe.RequestsClient(timeout=(CONNECT_SECONDS, READ_SECONDS)),
            max_network_retries=0,
        )

    # --- Calls ------------------------------------------------------------------------------------------------------

    def open_checkout(self, request: CheckoutRequest) -> Checkout:
        metadata = {"reference": request.reference.hex}
        line = {
            "quantity": 1,
            "price_data": {
                "currency": "usd",
                "unit_amount": nanos_to_cents(request.amount_nanos),
                "product_data": {"name": request.description},
            },
        }
        asked: Fields = {
            "mode": "payment",
            "line_items": [line],
            "payment_intent_data": {"metadata": metadata, "description": request.description},
            # Prices in the customer's own currency would be another amount than was ordered.
            "adaptive_pricing": {"enabled": False},
            **self._common(request, metadata),
        }
        return self._open(asked, key=f"crossmodel-checkout-{request.reference.hex}")

    def open_card_page(self, request: CheckoutRequest, *, customer_id: str) -> Checkout:
        asked: Fields = {
            "mode": "setup",
            "currency": "usd",
            "customer_creation": "always",
            **self._common(request, {"reference": request.reference.hex}),
        }
        if customer_id:
            del asked["customer_creation"], asked["customer_email"]
            asked["customer"] = customer_id
        # Each time that a card is to be kept it is another page.
        return self._open(asked, key="")

    def _common(self, request: CheckoutRequest, metadata: Fields) -> Fields:
        return {
            "client_reference_id": request.reference.hex,
            "metadata": metadata,
            "customer_email": request.customer_email,
            "success_url": request.return_url,
            "cancel_url": request.cancel_url,
        }

    def _open(self, asked: Fields, *, key: str) -> Checkout:
        options: Fields = {"idempotency_key": key} if key else {}
        session = self._ask(lambda: self._client.v1.checkout.sessions.create(cast(Any, asked), cast(Any, options)))
        return Checkout(session["id"], session["url"])

    def charge_card(self, request: CheckoutRequest, card: SavedCard) -> Sequence[PaymentEvent]:
        asked: Fields = {
            "amount": nanos_to_cents(request.amount_nanos),
            "currency": "usd",
            "customer": card.customer_id,
            "payment_method": card.method_id,
            "off_session": True,
            "confirm": True,
            "description": request.description,
            "metadata": {"reference": request.reference.hex, "origin": AUTOMATIC},
        }
        options: Fields = {"idempotency_key": f"crossmodel-charge-{request.reference.hex}"}
        intent = self._ask(lambda: self._client.v1.payment_intents.create(cast(Any, asked), cast(Any, options)))
        return _of_intent(intent, at=_at(intent["created"]))

    def read_checkout(self, *, reference: UUID, checkout_id: str, payment_id: str) -> Sequence[PaymentEvent]:
        events: list[PaymentEvent] = []
        if checkout_id:
            session = self._ask(lambda: self._client.v1.checkout.sessions.retrieve(checkout_id))
            events += _of_session(session, at=_at(session["created"]))
            payment_id = payment_id or session.get("payment_intent") or ""
        if payment_id:
            expand: Any = {"expand": ["latest_charge"]}
            intent = self._ask(lambda: self._client.v1.payment_intents.retrieve(payment_id, expand))
            if not checkout_id:
                events += _of_intent(intent, at=_at(intent["created"]))
            events += self._of_charge(intent.get("latest_charge"))
        return events

    def _of_charge(self, charge: Fields | None) -> Iterator[PaymentEvent]:
        if not charge or charge["status"] != "succeeded":
            return
        yield from _of_charge(charge, at=_at(charge["created"]))
        of_charge: Any = {"charge": charge["id"], "limit": PAGE_ROWS}
        refunds = self._ask(lambda: self._client.v1.refunds.list(of_charge))["data"]
        if refunds:
            has_failed = any(refund["status"] in ("failed", "canceled") for refund in refunds)
            latest = timezone.now() if has_failed else _at(max(refund["created"] for refund in refunds))
            yield from _of_refunded_charge(charge, at=latest)
        for dispute in self._ask(lambda: self._client.v1.disputes.list(of_charge))["data"]:
            at = _at(dispute["created"])
            yield _noted(dispute, at=at)
            moved = [item["reporting_category"] for item in dispute.get("balance_transactions", ())]
            if "dispute" in moved:
                yield _moved(dispute, is_withdrawal=True, at=at)
            if "dispute_reversal" in moved:
                yield _moved(dispute, is_withdrawal=False, at=at)

    def list_payments(self, start: datetime, end: datetime) -> Iterator[CheckoutPaid]:
        span = {"gte": int(start.timestamp()), "lt": math.ceil(end.timestamp())}  # Whole seconds, and none too few.
        charges: Any = {"created": span, "limit": PAGE_ROWS}
        for charge in self._all(lambda more: self._client.v1.charges.list(charges | more)):
            reference = _reference(charge.get("metadata"))
            if reference is not None and charge["status"] == "succeeded" and charge["currency"] == "usd":
                yield CheckoutPaid(
                    NAME,
                    reference,
                    cents_to_nanos(charge["amount"], read_currency(charge["currency"])),
                    _at(charge["created"]),
                    payment_id=charge.get("payment_intent") or "",
                    charge_id=charge["id"],
                    payment_method=_method(charge),
                )
        # What costs nothing has no charge.
        sessions: Any = {"created": span, "limit": PAGE_ROWS, "status": "complete"}
        for session in self._all(lambda more: self._client.v1.checkout.sessions.list(sessions | more)):
            if session["payment_status"] == "no_payment_required" and session["mode"] == "payment":
                yield from (
                    event
                    for event in _of_session(session, at=_at(session["created"]))
                    if isinstance(event, CheckoutPaid)
                )

    def refund(self, *, charge_id: str, payment_id: str, amount_nanos: int, key: str) -> ChargeRefunded:
        asked: Fields = {"amount": nanos_to_cents(amount_nanos)}
        asked |= {"charge": charge_id} if charge_id else {"payment_intent": payment_id}
        asked |= {"expand": ["charge"], "metadata": {"refund": key}}
        options: Fields = {"idempotency_key": f"crossmodel-refund-{key}"}
        refund = self._ask(lambda: self._client.v1.refunds.create(cast(Any, asked), cast(Any, options)))
        [event] = _of_refunded_charge(refund["charge"], at=_at(refund["created"]))
        return event

    def find_refund(self, *, charge_id: str, payment_id: str, key: str) -> ChargeRefunded | None:
        of: Any = {"charge": charge_id} if charge_id else {"payment_intent": payment_id}
        of |= {"expand": ["data.charge"], "limit": PAGE_ROWS}
        for refund in self._all(lambda more: self._client.v1.refunds.list(of | more)):
            if (refund.get("metadata") or {}).get("refund") == key:
                if refund["status"] in ("failed", "canceled"):
                    raise PaymentRefusedError(f"Stripe lists the refund as {refund['status']}.")
                [event] = _of_refunded_charge(refund["charge"], at=_at(refund["created"]))
                return event
        return None

    # --- Webhooks ---------------------------------------------------------------------------------------------------

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> Sequence[PaymentEvent]:
        try:
            self._client.construct_event(body, headers.get(SIGNATURE_HEADER), self._webhook_secret)
            message = json.loads(body)
            kind, at, told = message["type"], _at(message["created"]), message["data"]["object"]
        except stripe.SignatureVerificationError as error:
            raise WebhookRefusedError("The signature is missing, wrong or too old.") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WebhookRefusedError(f"This is no event of Stripe's: {type(error).__name__}.") from error
        if kind == "checkout.session.completed" and told.get("mode") == "setup":
            return self._card_kept(told, at=at)
        try:
            return list(_of_message(kind, told, at=at))
        except CurrencyError as error:
            return [WrongCurrency(NAME, told["id"], f"{kind}: {error}", at)]

    def _card_kept(self, session: Fields, *, at: datetime) -> list[PaymentEvent]:
        reference = _reference(session.get("metadata"))
        if reference is None or not session.get("setup_intent"):
            return []
        expand: Any = {"expand": ["payment_method"]}
        intent = self._ask(lambda: self._client.v1.setup_intents.retrieve(session["setup_intent"], expand))
        method = intent["payment_method"]
        return [
            CardSaved(NAME, reference, SavedCard(session["customer"], method["id"], _label(method)), occurred_at=at)
        ]

    def _ask(self, call: Callable[[], stripe.StripeObject]) -> Fields:
        """Make one call and return its answer as plain values."""
        try:
            return call().to_dict(for_json=True)
        except stripe.CardError as error:
            raise CardDeclinedError(error.user_message or DECLINED) from error
        except stripe.InvalidRequestError as error:
            raise PaymentRefusedError(error.user_message or "Stripe refused the request.") from error
        except stripe.StripeError as error:
            raise PaymentProviderError(f"Stripe did not answer as it should: {type(error).__name__}.") from error

    def _all(self, list_page: Callable[[Fields], stripe.StripeObject]) -> Iterator[Fields]:
        more: Fields = {}
        while True:
            page = self._ask(lambda: list_page(more))  # noqa: B023  Called at once.
            yield from page["data"]
            if not page.get("has_more") or not page["data"]:
                return
            more = {"starting_after": page["data"][-1]["id"]}


# --- What Stripe's objects say --------------------------------------------------------------------------------------


def _of_message(kind: str, told: Fields, *, at: datetime) -> Iterator[PaymentEvent]:
    """Yield what one event of Stripe's says; nothing for a kind, or for a payment, that is none of ours."""
    match kind:
        case (
            "checkout.session.completed"
            | "checkout.session.async_payment_succeeded"
            | "checkout.session.async_payment_failed"
            | "checkout.session.expired"
        ):
            yield from _of_session(told, at=at, has_failed=kind.endswith("failed"))
        case "payment_intent.succeeded" | "payment_intent.payment_failed" | "payment_intent.processing":
            # A payment that its customer is there for is told by its session: one declined card fails no order.
            if (told.get("metadata") or {}).get("origin") == AUTOMATIC:
                yield from _of_intent(told, at=at)
        case "charge.succeeded":
            yield from _of_charge(told, at=at)
        case "charge.refunded":
            yield from _of_refunded_charge(told, at=at)
        case "refund.failed" | "refund.updated" | "charge.refund.updated":
            if told["status"] in ("failed", "canceled"):
                amount = cents_to_nanos(told["amount"], read_currency(told["currency"]))
                yield RefundFailed(NAME, told["id"], told.get("charge") or "", _payment(told), amount, at)
        case "charge.dispute.created" | "charge.dispute.updated" | "charge.dispute.closed":
            yield _noted(told, at=at)
        case "charge.dispute.funds_withdrawn" | "charge.dispute.funds_reinstated":
            yield _moved(told, is_withdrawal=kind.endswith("withdrawn"), at=at)


def _of_session(session: Fields, *, at: datetime, has_failed: bool = False) -> Iterator[PaymentEvent]:
    reference = _reference(session.get("metadata"))
    if reference is None or session["mode"] != "payment":
        return
    ids = {"checkout_id": session["id"], "payment_id": session.get("payment_intent") or ""}
    if session["status"] == "expired":
        yield CheckoutFailed(NAME, reference, EXPIRED, at, **ids)
    elif has_failed:
        yield CheckoutFailed(NAME, reference, BOUNCED, at, **ids)
    elif session["status"] == "complete" and session["payment_status"] in ("paid", "no_payment_required"):
        paid = cents_to_nanos(session["amount_total"], read_currency(session["currency"]))
        yield CheckoutPaid(NAME, reference, paid, at, **ids)
    elif session["status"] == "complete":
        yield CheckoutProcessing(NAME, reference, at, **ids)


def _of_intent(intent: Fields, *, at: datetime) -> list[PaymentEvent]:
    reference = _reference(intent.get("metadata"))
    if reference is None:
        return []
    status = intent["status"]
    if status == "succeeded":
        paid = cents_to_nanos(intent["amount_received"], read_currency(intent["currency"]))
        charge = intent.get("latest_charge") or ""
        charge_id = charge if isinstance(charge, str) else charge["id"]
        return [CheckoutPaid(NAME, reference, paid, at, payment_id=intent["id"], charge_id=charge_id)]
    if status == "processing":
        return [CheckoutProcessing(NAME, reference, at, payment_id=intent["id"])]
    error = intent.get("last_payment_error") or {}
    return [CheckoutFailed(NAME, reference, error.get("message") or DECLINED, at, payment_id=intent["id"])]


def _of_charge(charge: Fields, *, at: datetime) -> Iterator[PaymentEvent]:
    reference = _reference(charge.get("metadata"))
    if reference is not None:
        yield ChargeSeen(NAME, _payment(charge), charge["id"], at, _method(charge), reference)


def _of_refunded_charge(charge: Fields, *, at: datetime) -> list[ChargeRefunded]:
    refunded = cents_to_nanos(charge["amount_refunded"], read_currency(charge["currency"]))
    return [ChargeRefunded(NAME, charge["id"], _payment(charge), refunded, at)]


def _noted(dispute: Fields, *, at: datetime) -> DisputeNoted:
    return DisputeNoted(NAME, dispute["id"], dispute["charge"], _payment(dispute), dispute["status"], at)


def _moved(dispute: Fields, *, is_withdrawal: bool, at: datetime) -> DisputeFundsMoved:
    amount = cents_to_nanos(dispute["amount"], read_currency(dispute["currency"]))
    return DisputeFundsMoved(NAME, dispute["id"], dispute["charge"], _payment(dispute), amount, is_withdrawal, at)


def _payment(told: Fields) -> str:
    return told.get("payment_intent") or ""


def _reference(metadata: Fields | None) -> UUID | None:
    """Return the reference of our order; None for what another shop of the same Stripe account sells."""
    text = (metadata or {}).get("reference", "")
    try:
        return UUID(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _method(charge: Fields) -> str:
    return _label(charge.get("payment_method_details") or {})


def _label(method: Fields) -> str:
    kind = str(method.get("type") or "")
    details = method.get(kind) or {}
    words = [str(details.get("brand") or kind.replace("_", " ")).capitalize()]
    if details.get("last4"):
        words.append(f"ending in {details['last4']}")
    return " ".join(words)[:100]


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
