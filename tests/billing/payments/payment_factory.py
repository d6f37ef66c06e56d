"""Orders and what a payment provider says of them, as events; the clock of the provider is whole seconds."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from accounts.models import Organization
from billing.models import TopUp
from billing.payments.events import Applied, apply_event
from billing.payments.orders import place_order
from billing.payments.provider import ChargeRefunded, CheckoutFailed, CheckoutPaid, DisputeFundsMoved, RefundFailed
from tests.billing.ledger_factory import USD

NOON = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)
PROVIDER = "stripe"
_numbers = itertools.count(1)


def at(seconds: int) -> datetime:
    return NOON + timedelta(seconds=seconds)


def order(organization: Organization, usd: int = 10, **values: Any) -> TopUp:
    defaults: dict[str, Any] = {
        "amount_nanos": usd * USD,
        "provider": PROVIDER,
        "idempotency_key": f"key-{next(_numbers)}",
        "actor": "alice@example.org",
    }
    return place_order(organization, **{**defaults, **values})


def paid(top_up: TopUp, **values: Any) -> CheckoutPaid:
    defaults: dict[str, Any] = {
        "provider": PROVIDER,
        "reference": top_up.reference,
        "paid_nanos": top_up.amount_nanos,
        "occurred_at": NOON,
        "checkout_id": f"cs_{top_up.pk}",
        "payment_id": f"pi_{top_up.pk}",
        "charge_id": f"ch_{top_up.pk}",
    }
    return CheckoutPaid(**{**defaults, **values})


def failed(top_up: TopUp, reason: str = "The bank declined the debit.", **values: Any) -> CheckoutFailed:
    return CheckoutFailed(PROVIDER, top_up.reference, reason, at(5), f"cs_{top_up.pk}", **values)


def refunded(top_up: TopUp, usd: int, *, seconds: int = 10) -> ChargeRefunded:
    return ChargeRefunded(PROVIDER, f"ch_{top_up.pk}", f"pi_{top_up.pk}", usd * USD, at(seconds))


def refund_failed(top_up: TopUp, usd: int, *, seconds: int) -> RefundFailed:
    return RefundFailed(PROVIDER, f"re_{seconds}", f"ch_{top_up.pk}", f"pi_{top_up.pk}", usd * USD, at(seconds))


def withdrawn(top_up: TopUp, usd: int = 10, *, dispute: str = "dp_1") -> DisputeFundsMoved:
    return DisputeFundsMoved(
        PROVIDER, dispute, f"ch_{top_up.pk}", "", usd * USD, is_withdrawal=True, occurred_at=at(20)
    )


def reinstated(top_up: TopUp, usd: int = 10, *, dispute: str = "dp_1") -> DisputeFundsMoved:
    return DisputeFundsMoved(
        PROVIDER, dispute, f"ch_{top_up.pk}", "", usd * USD, is_withdrawal=False, occurred_at=at(30)
    )


def buy(organization: Organization, usd: int = 10) -> TopUp:
    """Return an order that is paid and credited."""
    top_up = order(organization, usd)
    applied: Applied = apply_event(paid(top_up))
    assert applied.changed
    top_up.refresh_from_db()
    return top_up
