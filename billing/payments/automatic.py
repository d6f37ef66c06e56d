"""Automatic top-up: pays with a kept card when the balance falls below the threshold. Asked each minute by a task.

One order at a time (a unique key says so), as large as the gap, below ceilings in money and in number for each day and
month. An attempt is counted before the provider is called, so a declining card is never asked again and again.
"""

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from django.db import DatabaseError, transaction
from django.db.models import Count, F, Q, QuerySet, Sum
from django.utils import timezone

from accounts.models import Organization
from billing.alerts.book import raise_alert
from billing.ledger.statements import posted_nanos
from billing.models import Alert, AutomaticTopUp, TopUp
from billing.money import NANOS_PER_CENT
from billing.payments.automatic_settings import count_attempt, lock_settings
from billing.payments.events import apply_event
from billing.payments.orders import bounds, describe, place_order
from billing.payments.provider import (
    CardDeclinedError,
    CheckoutFailed,
    CheckoutRequest,
    PaymentProvider,
    PaymentProviderError,
    PaymentRefusedError,
    SavedCard,
)
from billing.payments.providers import UnknownProviderError, find_provider
from billing.watching import watched

MAX_ORGANIZATIONS_PER_ROUND = 50
# An order that got no answer is asked about again, by the same key, which providers remember for a day.
RESUME_AFTER = timedelta(minutes=1)
RESUME_FOR = timedelta(hours=20)
NO_ANSWER = "The payment provider gave no answer."
ACTOR = "automatic top-up"
CEILING = "A ceiling of automatic top-up is reached."

Subject = TypeVar("Subject", TopUp, Organization)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Round:
    """How many orders were placed, and how many of an earlier round were asked about again."""

    placed: int
    resumed: int


def run_automatic_top_ups(*, now: datetime | None = None) -> Round:
    """Top up every organization that is due, each by itself: one that fails holds up no other."""
    now = now or timezone.now()
    resumed = sum(_each(partial(_resume, now=now), top_up) for top_up in _unanswered(now))
    due = due_organizations(now)
    placed = sum(_each(top_up_automatically, organization) for organization in watched(due, len(due)))
    return Round(placed, resumed)


def due_organizations(now: datetime) -> list[Organization]:
    """Return organizations whose posted balance is below their threshold and that may be topped up now."""
    waiting = Q(next_attempt_at=None) | Q(next_attempt_at__lte=now)
    below = Q(organization__balance__posted_nanos__lt=F("threshold_nanos")) | Q(organization__balance=None)
    rows = AutomaticTopUp.objects.filter(waiting, below, is_on=True, suspended_at=None)
    rows = rows.filter(organization__status=Organization.Status.ACTIVE)
    rows = rows.exclude(organization__top_ups__in=_pending()).select_related("organization")
    return [
        row.organization
        for row in rows.order_by(F("next_attempt_at").asc(nulls_first=True))[:MAX_ORGANIZATIONS_PER_ROUND]
    ]


def top_up_automatically(organization: Organization) -> bool:
    """Place one order and charge the card, if it is still due under the lock. Returns whether an order was placed."""
    placed = _place(organization)
    if placed is None:
        return False
    _charge(*placed)
    return True


def _place(organization: Organization) -> tuple[TopUp, AutomaticTopUp] | None:
    with transaction.atomic():
        # As everywhere, an organization is locked before its settings.
        locked = Organization.objects.select_for_update(no_key=True).get(pk=organization.pk)
        row = lock_settings(organization)
        now = timezone.now()
        gap_nanos = row.threshold_nanos - posted_nanos(organization)
        is_early = row.next_attempt_at is not None and row.next_attempt_at > now
        has_pending = _pending().filter(organization=organization).exists()
        # It was due a while ago: others were charged since, and meanwhile it may have been closed.
        is_open = locked.status == Organization.Status.ACTIVE
        if not is_open or not row.is_on or row.suspended_at or is_early or has_pending or gap_nanos <= 0:
            return None
        amount_nanos = _amount(row, gap_nanos, now)
        if amount_nanos is None:
            return None
        count_attempt(row)
        top_up = place_order(
            organization,
            amount_nanos=amount_nanos,
            provider=row.provider,
            idempotency_key=f"automatic-{uuid.uuid4().hex}",
            actor=ACTOR,
            origin=TopUp.Origin.AUTOMATIC,
        )
        return top_up, row


def _amount(row: AutomaticTopUp, gap_nanos: int, now: datetime) -> int | None:
    """Return what to charge: the chosen amount, or the gap where it is larger, as far as the ceilings leave it.

    None, after saying why, where they leave less than the least top-up.
    """
    day = now.replace(hour=0, minute=0, second=0, microsecond=0)
    wanted = max(row.amount_nanos, -(-gap_nanos // NANOS_PER_CENT) * NANOS_PER_CENT)
    limits = bounds()
    amount = min(wanted, limits.max_nanos)
    for since, most_nanos, most in (
        (day, row.max_day_nanos, row.max_day_count),
        (day.replace(day=1), row.max_month_nanos, row.max_month_count),
    ):
        orders = TopUp.objects.filter(
            organization=row.organization, origin=TopUp.Origin.AUTOMATIC, created_at__gte=since
        )
        so_far = orders.aggregate(
            count=Count("pk"), nanos=Sum("amount_nanos", filter=~Q(state=TopUp.State.FAILED), default=0)
        )
        left = (most_nanos - so_far["nanos"]) // NANOS_PER_CENT * NANOS_PER_CENT
        amount = min(amount, left if so_far["count"] < most else 0)
    if amount >= limits.min_nanos:
        return amount
    row.reason = CEILING
    row.next_attempt_at = day + timedelta(days=1)
    row.save(update_fields=["reason", "next_attempt_at"])
    raise_alert(row.organization, Alert.Kind.AUTOMATIC_TOP_UP_FAILED, details={"reason": CEILING})
    return None


def _charge(top_up: TopUp, row: AutomaticTopUp) -> None:
    """Charge the card, once for the order, and make true what the provider says. Without an answer it stays pending."""
    request = CheckoutRequest(top_up.reference, top_up.amount_nanos, describe(top_up), "", "", "")
    try:
        provider: PaymentProvider = find_provider(top_up.provider)
        events = provider.charge_card(request, SavedCard(row.customer_id, row.method_id, row.method_label))
    except (CardDeclinedError, PaymentRefusedError, UnknownProviderError) as error:
        events = [CheckoutFailed(top_up.provider, top_up.reference, str(error), timezone.now())]
    except PaymentProviderError as error:
        logger.warning("Automatic top-up %s has no answer yet: %s", top_up.pk, error)
        return
    for event in events:
        apply_event(event)


def _each(act: Callable[[Subject], bool], subject: Subject) -> bool:
    try:
        return act(subject)
    except DatabaseError:
        raise
    except Exception:
        logger.exception("An automatic top-up failed: %r", subject)
        return False


def _resume(top_up: TopUp, *, now: datetime) -> bool:
    """Ask again about an order that got no answer; give up before the provider forgets that it was asked.

    Nobody's card is charged who has turned it off meanwhile, or closed: whether it was before, the provider tells.
    """
    row = AutomaticTopUp.objects.get(organization=top_up.organization_id)
    if top_up.created_at < now - RESUME_FOR:
        apply_event(CheckoutFailed(top_up.provider, top_up.reference, NO_ANSWER, now))
    elif not row.is_on or top_up.organization.status != Organization.Status.ACTIVE:
        return False
    else:
        _charge(top_up, row)
    return True


def _unanswered(now: datetime) -> list[TopUp]:
    waiting = _pending().filter(processing_since=None, created_at__lt=now - RESUME_AFTER)
    return list(waiting.select_related("organization").order_by("pk")[:MAX_ORGANIZATIONS_PER_ROUND])


def _pending() -> QuerySet[TopUp]:
    return TopUp.objects.filter(state=TopUp.State.PENDING, origin=TopUp.Origin.AUTOMATIC)
