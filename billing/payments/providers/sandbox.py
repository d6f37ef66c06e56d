"""The sandbox payment provider of `sandbox/payments_server.py`, through its API and its signed webhooks."""

import hashlib
import hmac
import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from billing.money import CurrencyError, cents_to_nanos, nanos_to_cents, read_currency
from billing.payments.provider import (
    MAX_PROVIDER_SECONDS,
    CardDeclinedError,
    CardSaved,
    ChargeRefunded,
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

NAME = "sandbox"
SIGNATURE_HEADER = "sandbox-signature"
MAX_SIGNATURE_AGE_SECONDS = 300
MAX_ANSWER_BYTES = 10 * 1024 * 1024
Fields = dict[str, Any]


class SandboxProvider:
    name = NAME

    def __init__(self, url: str, webhook_secret: str) -> None:
        if not webhook_secret:
            raise ValueError("An empty webhook secret would let everybody in.")
        self._url = url
        self._secret = webhook_secret

    def open_checkout(self, request: CheckoutRequest) -> Checkout:
        answer = self._call("/v1/checkouts", _asked(request) | {"mode": "payment"})
        return Checkout(answer["id"], answer["url"])

    def open_card_page(self, request: CheckoutRequest, *, customer_id: str) -> Checkout:
        answer = self._call("/v1/checkouts", _asked(request) | {"mode": "card", "customer": customer_id})
        return Checkout(answer["id"], answer["url"])

    def charge_card(self, request: CheckoutRequest, card: SavedCard) -> Sequence[PaymentEvent]:
        asked = _asked(request) | {"customer": card.customer_id, "method": card.method_id}
        events = _events_of(self._call("/v1/charges", asked))
        for event in events:
            if isinstance(event, CheckoutFailed):
                raise CardDeclinedError(event.reason)
        return events

    def read_checkout(self, *, reference: UUID, checkout_id: str, payment_id: str) -> Sequence[PaymentEvent]:
        try:
            return _events_of(self._call(f"/v1/orders/{reference.hex}"))
        except PaymentRefusedError:
            return []

    def list_payments(self, start: datetime, end: datetime) -> Iterator[CheckoutPaid]:
        span = f"start={int(start.timestamp())}&end={math.ceil(end.timestamp())}"  # Whole seconds, and none too few.
        for checkout in self._call(f"/v1/payments?{span}")["payments"]:
            yield from (event for event in _events_of(checkout) if isinstance(event, CheckoutPaid))

    def refund(self, *, charge_id: str, payment_id: str, amount_nanos: int, key: str) -> ChargeRefunded:
        asked = {"charge": charge_id, "amount_cents": nanos_to_cents(amount_nanos)}
        events = _events_of(self._call("/v1/refunds", asked, headers={"idempotency-key": key}))
        return next(event for event in events if isinstance(event, ChargeRefunded))

    def find_refund(self, *, charge_id: str, payment_id: str, key: str) -> ChargeRefunded | None:
        checkout = self._call(f"/v1/refunds?charge={charge_id}")
        found = [refund for refund in checkout["refunds"] if refund.get("key") == key]
        if not found:
            return None
        if found[0]["status"] != "succeeded":
            raise PaymentRefusedError(f"The sandbox lists the refund as {found[0]['status']}.")
        return next(event for event in _events_of(checkout) if isinstance(event, ChargeRefunded))

    def read_webhook(self, body: bytes, headers: Mapping[str, str]) -> Sequence[PaymentEvent]:
        self._check_signature(body, headers.get(SIGNATURE_HEADER, ""))
        try:
            message = json.loads(body)
            return _events_of_message(message)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, CurrencyError):
                raise
            raise WebhookRefusedError(f"This is no event: {type(error).__name__}.") from error

    def _check_signature(self, body: bytes, header: str) -> None:
        parts = dict(part.split("=", 1) for part in header.split(",") if "=" in part)
        sent_at = parts.get("t", "")
        if not sent_at.isascii() or not sent_at.isdigit() or len(sent_at) > 12:
            raise WebhookRefusedError("The signature is missing.")
        signed = sent_at.encode() + b"." + body
        expected = hmac.new(self._secret.encode(), signed, hashlib.sha256).hexdigest()
        if not hmac.compare_digest(expected.encode(), parts.get("v1", "").encode()):
            raise WebhookRefusedError("The signature is wrong.")
        if abs(time.time() - int(sent_at)) > MAX_SIGNATURE_AGE_SECONDS:
            raise WebhookRefusedError("The signature is too old.")

    def _call(self, path: str, asked: Fields | None = None, *, headers: Mapping[str, str] | None = None) -> Fields:
        request = urllib.request.Request(  # noqa: S310  The settings name it.
            self._url + path,
            None if asked is None else json.dumps(asked).encode(),
            {"content-type": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=MAX_PROVIDER_SECONDS) as response:  # noqa: S310
                answer: Fields = json.loads(response.read(MAX_ANSWER_BYTES))
                return answer
        except urllib.error.HTTPError as error:
            with error:
                text = error.read(MAX_ANSWER_BYTES)
            if 400 <= error.code < 500:
                raise PaymentRefusedError(_message(text)) from error
            raise PaymentProviderError(f"The sandbox answered {error.code}.") from error
        except (OSError, ValueError) as error:
            raise PaymentProviderError(f"The sandbox cannot be reached: {error}") from error


def _asked(request: CheckoutRequest) -> Fields:
    return {
        "reference": request.reference.hex,
        "amount_cents": nanos_to_cents(request.amount_nanos),
        "currency": "usd",
        "description": request.description,
        "email": request.customer_email,
        "return_url": request.return_url,
        "cancel_url": request.cancel_url,
    }


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "The payment provider refused."


def _events_of_message(message: Fields) -> list[PaymentEvent]:
    """Return what one message says; what it tells of beside its own kind is left to other messages."""
    checkout, at = message["checkout"], _at(message["created"])
    kinds: dict[str, tuple[type[PaymentEvent], ...]] = {
        "checkout.paid": (CheckoutPaid,),
        "checkout.processing": (CheckoutProcessing,),
        "checkout.failed": (CheckoutFailed,),
        "charge.refunded": (ChargeRefunded,),
        "refund.failed": (RefundFailed,),
        "dispute.opened": (DisputeNoted,),
        "dispute.closed": (DisputeNoted,),
        "dispute.funds_withdrawn": (DisputeFundsMoved,),
        "dispute.funds_reinstated": (DisputeFundsMoved,),
        "card.saved": (CardSaved,),
    }
    wanted = (*kinds.get(message["type"], ()), WrongCurrency)
    return [event for event in _events_of(checkout | {"told_at": int(at.timestamp())}) if isinstance(event, wanted)]


def _events_of(checkout: Fields) -> list[PaymentEvent]:
    """Return everything that follows from a checkout as the provider shows it."""
    reference = UUID(checkout["reference"])
    at = _at(checkout.get("told_at") or checkout.get("failed_at") or checkout["created"])
    try:
        currency = read_currency(checkout["currency"])
    except CurrencyError as error:
        return [WrongCurrency(NAME, checkout["id"], str(error), at)]
    if checkout["mode"] == "card":
        return [CardSaved(NAME, reference, SavedCard(**_card(checkout)), at)] if "card" in checkout else []
    ids = {"checkout_id": checkout["id"], "payment_id": checkout.get("payment", "")}
    if checkout["status"] == "processing":
        return [CheckoutProcessing(NAME, reference, at, **ids)]
    if checkout["status"] == "failed":
        return [CheckoutFailed(NAME, reference, checkout["failure"], at, **ids)]
    if checkout["status"] != "paid":
        return []
    charge = checkout.get("charge", "")
    paid = CheckoutPaid(
        NAME,
        reference,
        cents_to_nanos(checkout["amount_cents"] - checkout["discount_cents"], currency),
        _at(checkout["paid_at"]),
        charge_id=charge,
        payment_method=checkout["method"],
        **ids,
    )
    return [paid, *_refunds_of(checkout), *_disputes_of(checkout)]


def _refunds_of(checkout: Fields) -> Iterator[PaymentEvent]:
    charge, payment, currency = checkout.get("charge", ""), checkout["payment"], read_currency(checkout["currency"])
    refunds = checkout["refunds"]
    if refunds:
        sum_cents = sum(refund["amount_cents"] for refund in refunds if refund["status"] == "succeeded")
        latest = max(max(refund["created"], refund.get("failed_at", 0)) for refund in refunds)
        yield ChargeRefunded(NAME, charge, payment, cents_to_nanos(sum_cents, currency), _at(latest))
    for refund in refunds:
        if refund["status"] == "failed":
            amount = cents_to_nanos(refund["amount_cents"], currency)
            yield RefundFailed(NAME, refund["id"], charge, payment, amount, _at(refund["failed_at"]))


def _disputes_of(checkout: Fields) -> Iterator[PaymentEvent]:
    charge = checkout.get("charge", "")
    for dispute in checkout["disputes"]:
        # As with card companies, a dispute names its charge and nobody's order.
        yield DisputeNoted(NAME, dispute["id"], charge, "", dispute["status"], _at(dispute["updated_at"]))
        amount = cents_to_nanos(dispute["amount_cents"], read_currency(checkout["currency"]))
        for name, is_withdrawal in (("withdrawn_at", True), ("reinstated_at", False)):
            if dispute[name]:
                at = _at(dispute[name])
                yield DisputeFundsMoved(NAME, dispute["id"], charge, "", amount, is_withdrawal, at)


def _card(checkout: Fields) -> dict[str, str]:
    card = checkout["card"]
    return {"customer_id": card["customer"], "method_id": card["method"], "label": card["label"]}


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
