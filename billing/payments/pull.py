"""Asks providers what became of payments: a webhook that was lost costs minutes, and no money.

Orders are asked about at growing intervals: one that is pending at first each minute, one that is paid each day, for
the refunds and disputes that may follow. Whatever comes back goes the way that webhooks go.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import InterfaceError, OperationalError
from django.db.models import DurationField, ExpressionWrapper, F, Q
from django.db.models.functions import Greatest
from django.utils import timezone

from billing.models import TopUp
from billing.payments.events import adopt_waiting, apply_event
from billing.payments.provider import (
    CheckoutFailed,
    CheckoutPaid,
    PaymentEvent,
    PaymentProviderError,
    PaymentRefusedError,
)
from billing.payments.providers import UnknownProviderError, find_provider
from billing.payments.refunds import resume_refunds
from billing.watching import watched

MAX_ORDERS_PER_ROUND = 100
FIRST_LOOK = timedelta(seconds=30)  # Webhooks come within seconds.
LEAST_INTERVAL, LEAST_INTERVAL_PAID = timedelta(minutes=1), timedelta(days=1)
SHARE_OF_AGE = 10  # An order is asked about again when it has grown older by a tenth.
MAX_PENDING = timedelta(days=30)
MAX_UNOPENED = timedelta(days=2)
MAX_PAID = timedelta(days=180)  # Card holders may dispute for about four months.
NEVER_OPENED, NEVER_PAID = "It was never paid.", "The payment never came."

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Pulled:
    """How many orders were asked about, and the orders that were paid and not credited until now.

    `failed` counts what could not be asked, understood or made true; the log says why.
    """

    asked: int = 0
    failed: int = 0
    credited: list[TopUp] = field(default_factory=list)


def pull_orders(*, now: datetime | None = None) -> Pulled:
    """Ask about the orders that are due, and make true what is said.

    A provider that is down holds up no other, and an order whose answer makes no sense no other order.
    """
    now = now or timezone.now()
    pulled = Pulled()
    down: set[str] = set()
    due = _due(now)
    for top_up in watched(due, len(due)):
        if top_up.provider in down:
            continue
        try:
            events = _ask(top_up, now)
        except (PaymentProviderError, UnknownProviderError) as error:
            logger.warning("Payments of %s are asked about later: %s", top_up.provider, error)
            down.add(top_up.provider)
            pulled.failed += 1
            continue
        except PaymentRefusedError as error:
            logger.warning("Top-up %s cannot be asked about: %s", top_up.pk, error)
            events = []
        except Exception:
            logger.exception("What %s says of top-up %s cannot be understood.", top_up.provider, top_up.pk)
            pulled.failed += 1
            events = []
        pulled.asked += 1
        _apply(events, pulled)
        TopUp.objects.filter(pk=top_up.pk).update(checked_at=now)
    adopt_waiting()
    resume_refunds()
    return pulled


def pull_payments(provider_name: str, start: datetime, end: datetime) -> Pulled:
    """Go through the provider's own list of a span, and credit what was paid and not credited, each for itself.

    Raises PaymentProviderError, UnknownProviderError.
    """
    pulled = Pulled()
    for event in watched(find_provider(provider_name).list_payments(start, end)):
        pulled.asked += 1
        _apply([event], pulled)
    return pulled


def _ask(top_up: TopUp, now: datetime) -> list[PaymentEvent]:
    provider = find_provider(top_up.provider)
    events = list(
        provider.read_checkout(reference=top_up.reference, checkout_id=top_up.checkout_id, payment_id=top_up.payment_id)
    )
    age = now - top_up.created_at
    if top_up.state == TopUp.State.PENDING and not any(
        isinstance(event, CheckoutPaid | CheckoutFailed) for event in events
    ):
        if age > MAX_PENDING:
            return [CheckoutFailed(top_up.provider, top_up.reference, NEVER_PAID, now)]
        if age > MAX_UNOPENED and not top_up.checkout_id and not top_up.payment_id:
            return [CheckoutFailed(top_up.provider, top_up.reference, NEVER_OPENED, now)]
    return events


def _apply(events: Iterable[PaymentEvent], pulled: Pulled) -> None:
    """Make the events true, each for itself: one that fails holds up no other, unless Postgres is away."""
    for event in events:
        try:
            applied = apply_event(event)
        except (OperationalError, InterfaceError):
            raise
        except Exception:
            logger.exception("What a payment provider says could not be made true: %s", event)
            pulled.failed += 1
            continue
        if applied.is_credited_now and applied.top_up is not None:
            pulled.credited.append(applied.top_up)


def _due(now: datetime) -> list[TopUp]:
    age = ExpressionWrapper((now - F("created_at")) / SHARE_OF_AGE, output_field=DurationField())
    pending = Q(state=TopUp.State.PENDING, created_at__lt=now - FIRST_LOOK)
    paid = Q(state=TopUp.State.PAID, paid_at__lt=now - LEAST_INTERVAL_PAID, paid_at__gt=now - MAX_PAID)
    rows = TopUp.objects.annotate(wait=Greatest(age, LEAST_INTERVAL, output_field=DurationField()))
    rows = rows.filter(
        (pending & (Q(checked_at=None) | Q(checked_at__lt=now - F("wait"))))
        | (paid & (Q(checked_at=None) | Q(checked_at__lt=now - Greatest(F("wait"), LEAST_INTERVAL_PAID))))
    )
    return list(rows.order_by(F("checked_at").asc(nulls_first=True), "pk")[:MAX_ORDERS_PER_ROUND])
