"""The sandbox payment provider: what it does with money that is not real. Its people and its API call these functions.

It behaves as card companies do: a payment may be declined, or arrive days later or never; refunds are told as their
sum; a dispute moves funds by itself. Each function changes one checkout and queues the event that tells of it.
"""

import json
import time
from typing import Any

from sandbox.payments_store import Checkout, Store, make_id

MAX_CENTS = 100_000_000
MAX_TEXT_CHARACTERS = 2_000
CURRENCIES = ("usd", "eur")
MODES = ("payment", "card")
LABEL = "Sandbox card ending in 4242"
DECLINED = "The card was declined."
DECLINING_LABEL = "Sandbox card ending in 0002"


class RefusedError(Exception):
    """The provider says no, with the status that its API answers."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


def open_checkout(store: Store, asked: dict[str, Any]) -> Checkout:
    """Return the checkout of a reference, which is opened when there is none. Raises RefusedError."""
    mode = asked.get("mode", "payment")
    if mode not in MODES:
        raise RefusedError(400, "invalid_mode", "sandbox: mode is payment or card")
    checkout: Checkout = {
        "id": make_id("cs"),
        "mode": mode,
        "reference": _reference(asked),
        "amount_cents": _cents(asked) if mode == "payment" else 0,
        "discount_cents": 0,
        "currency": _currency(asked),
        "description": _text(asked, "description"),
        "email": _text(asked, "email"),
        "return_url": _text(asked, "return_url"),
        "cancel_url": _text(asked, "cancel_url"),
        "customer": asked.get("customer") or make_id("cus"),
        "status": "open",
        "created": int(time.time()),
    }
    return _same_terms(store.create(checkout), checkout)


def pay(store: Store, checkout_id: str, *, discount_cents: int = 0, label: str = LABEL) -> Checkout:
    """Pay at once, or all but a discount. A checkout that is paid or on its way stays as it is."""
    with store.commit():
        checkout = _find(store, checkout_id)
        if checkout["mode"] == "card":
            return _keep_card(store, checkout, label)
        if checkout["status"] not in ("open", "processing"):
            return checkout
        checkout["discount_cents"] = min(max(0, discount_cents), checkout["amount_cents"])
        _mark_paid(checkout, label)
        store.save(checkout)
        store.add_event("checkout.paid", checkout)
        return checkout


def pay_later(store: Store, checkout_id: str) -> Checkout:
    """Let the money come later, or never, as with a debit from a bank account."""
    with store.commit():
        checkout = _find(store, checkout_id)
        if checkout["status"] == "open":
            checkout |= {"status": "processing", "payment": make_id("pay")}
            store.save(checkout)
            store.add_event("checkout.processing", checkout)
        return checkout


def fail(store: Store, checkout_id: str, reason: str) -> Checkout:
    """End a checkout without money."""
    with store.commit():
        checkout = _find(store, checkout_id)
        if checkout["status"] in ("open", "processing"):
            checkout |= {"status": "failed", "failure": reason, "failed_at": int(time.time())}
            store.save(checkout)
            store.add_event("checkout.failed", checkout)
        return checkout


def charge_card(store: Store, asked: dict[str, Any]) -> Checkout:
    """Charge a card that was kept, once for the reference. A declining card declines each time."""
    reference = _reference(asked)
    with store.commit():
        known = store.find("reference", reference)
        if known is None:
            known = store.create(
                {
                    "id": make_id("cs"),
                    "mode": "payment",
                    "reference": reference,
                    "amount_cents": _cents(asked),
                    "discount_cents": 0,
                    "currency": _currency(asked),
                    "description": _text(asked, "description"),
                    "customer": _text(asked, "customer"),
                    "status": "open",
                    "created": int(time.time()),
                }
            )
            if asked.get("method", "").endswith("_declines"):
                known |= {"status": "failed", "failure": DECLINED, "failed_at": int(time.time())}
                store.add_event("checkout.failed", known)
            else:
                _mark_paid(known, LABEL)
                store.add_event("checkout.paid", known)
            store.save(known)
        return known


def refund(store: Store, asked: dict[str, Any], *, key: str) -> Checkout:
    """Pay a part of a charge back, once for the key. Raises RefusedError."""
    charge = _text(asked, "charge")
    given = json.dumps([charge, asked.get("amount_cents")])
    with store.commit():
        earlier = store.answered(f"refund:{key}") if key else None
        if earlier is not None:
            if earlier[0] != given:
                raise RefusedError(409, "idempotency_conflict", "sandbox: this key was used for another refund")
            answer: Checkout = json.loads(earlier[1])
            return answer
        checkout = store.find("charge", charge)
        if checkout is None:
            raise RefusedError(404, "unknown_charge", "sandbox: there is no such charge")
        cents = _cents(asked)
        if any(dispute["withdrawn_at"] and not dispute["reinstated_at"] for dispute in checkout["disputes"]):
            raise RefusedError(409, "charge_disputed", "This charge is disputed, and its funds are withdrawn.")
        if cents > paid_cents(checkout) - refunded_cents(checkout):
            raise RefusedError(409, "refund_too_large", "More would be refunded than was paid.")
        checkout["refunds"].append(
            {
                "id": make_id("re"),
                "amount_cents": cents,
                "status": "succeeded",
                "created": _next_second(checkout),
                "key": key,
            }
        )
        store.save(checkout)
        store.add_event("charge.refunded", checkout)
        if key:
            store.remember(f"refund:{key}", given, json.dumps(checkout))
        return checkout


def fail_refund(store: Store, checkout_id: str) -> Checkout:
    """The last refund does not arrive after all."""
    with store.commit():
        checkout = _find(store, checkout_id)
        arrived = [refund for refund in checkout.get("refunds", ()) if refund["status"] == "succeeded"]
        if arrived:
            arrived[-1] |= {"status": "failed", "failed_at": _next_second(checkout)}
            store.save(checkout)
            store.add_event("refund.failed", checkout, refund=arrived[-1])
        return checkout


def dispute(store: Store, checkout_id: str, step: str) -> Checkout:
    """Take a step of a dispute: open (which withdraws the funds), win (which gives them back) or lose."""
    now = int(time.time())
    with store.commit():
        checkout = _find(store, checkout_id)
        running = [known for known in checkout.get("disputes", ()) if known["status"] == "needs_response"]
        if step == "open" and checkout["status"] == "paid" and not running:
            left = paid_cents(checkout) - refunded_cents(checkout)
            opened = {
                "id": make_id("dp"),
                "status": "needs_response",
                "amount_cents": left,
                "updated_at": now,
                "withdrawn_at": now,
                "reinstated_at": None,
            }
            checkout["disputes"].append(opened)
            store.save(checkout)
            store.add_event("dispute.opened", checkout, dispute=opened)
            store.add_event("dispute.funds_withdrawn", checkout, dispute=opened)
        elif step in ("win", "lose") and running:
            running[-1] |= {"status": "won" if step == "win" else "lost", "updated_at": now}
            if step == "win":
                running[-1]["reinstated_at"] = now
            store.save(checkout)
            store.add_event("dispute.closed", checkout, dispute=running[-1])
            if step == "win":
                store.add_event("dispute.funds_reinstated", checkout, dispute=running[-1])
        return checkout


def paid_cents(checkout: Checkout) -> int:
    return int(checkout["amount_cents"]) - int(checkout["discount_cents"])


def refunded_cents(checkout: Checkout) -> int:
    return sum(int(refund["amount_cents"]) for refund in checkout.get("refunds", ()) if refund["status"] == "succeeded")


def shown(checkout: Checkout) -> Checkout:
    """Return a checkout as the API shows it, with its sums."""
    return checkout | {"paid_cents": paid_cents(checkout), "refunded_cents": refunded_cents(checkout)}


def _mark_paid(checkout: Checkout, label: str) -> None:
    now = int(time.time())
    checkout |= {"status": "paid", "paid_at": now, "method": label, "refunds": [], "disputes": []}
    checkout.setdefault("payment", make_id("pay"))
    if paid_cents(checkout):  # As at card companies: what costs nothing has no charge.
        checkout["charge"] = make_id("ch")


def _keep_card(store: Store, checkout: Checkout, label: str) -> Checkout:
    if checkout["status"] == "open":
        method = make_id("pm") + ("_declines" if label == DECLINING_LABEL else "")
        checkout |= {"status": "paid", "card": {"customer": checkout["customer"], "method": method, "label": label}}
        store.save(checkout)
        store.add_event("card.saved", checkout)
    return checkout


def _next_second(checkout: Checkout) -> int:
    """Return now, later than any earlier refund: sums that are told are in order by whole seconds."""
    times: list[int] = [at for refund in checkout["refunds"] for at in (refund["created"], refund.get("failed_at", 0))]
    return max([int(time.time()), *(at + 1 for at in times)])


def _find(store: Store, checkout_id: str) -> Checkout:
    checkout = store.find("id", checkout_id)
    if checkout is None:
        raise RefusedError(404, "unknown_checkout", "sandbox: there is no such checkout")
    return checkout


def _same_terms(known: Checkout, asked: Checkout) -> Checkout:
    if (known["amount_cents"], known["currency"]) != (asked["amount_cents"], asked["currency"]):
        raise RefusedError(409, "idempotency_conflict", "sandbox: this reference has a checkout with another amount")
    return known


def _cents(asked: dict[str, Any]) -> int:
    cents = asked.get("amount_cents")
    if not isinstance(cents, int) or isinstance(cents, bool) or not 0 < cents <= MAX_CENTS:
        raise RefusedError(400, "invalid_amount", f"sandbox: amount_cents lies between 1 and {MAX_CENTS}")
    return cents


def _currency(asked: dict[str, Any]) -> str:
    if asked.get("currency") not in CURRENCIES:
        raise RefusedError(400, "invalid_currency", "sandbox: currency is usd, or eur to see it refused")
    return str(asked["currency"])


def _reference(asked: dict[str, Any]) -> str:
    reference = _text(asked, "reference")
    if not reference:
        raise RefusedError(400, "no_reference", "sandbox: a reference is required")
    return reference


def _text(asked: dict[str, Any], name: str) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str) or len(value) > MAX_TEXT_CHARACTERS:
        raise RefusedError(400, "invalid_text", f"sandbox: {name} is no text, or too long")
    return value
