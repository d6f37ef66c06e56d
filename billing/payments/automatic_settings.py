"""The settings and the state of automatic top-up. Only its own form, and a card that is kept, change the settings.

Its state follows from what becomes of payments: events.py tells of it here.
"""

import uuid
from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction
from django.utils import timezone

from accounts.models import Organization
from billing.alerts.book import clear_alert, raise_alert
from billing.models import Alert, AutomaticTopUp, TopUp
from billing.payments.orders import bounds
from billing.payments.provider import CardSaved

FAILURES_THAT_SUSPEND = 3
# After a failure it waits this long, twice as long after each further one.
FIRST_WAIT = timedelta(minutes=15)
MAX_REASON_CHARACTERS = 300
MAX_DAY_COUNT, MAX_MONTH_COUNT = 20, 200


class InvalidAutomaticTopUpError(ValueError):
    """The settings make no sense; the text says why, for whoever typed them."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What the form sets. Amounts in nano-dollars; ceilings are for UTC days and calendar months."""

    is_on: bool
    threshold_nanos: int
    amount_nanos: int
    max_day_nanos: int
    max_month_nanos: int
    max_day_count: int
    max_month_count: int


def read_settings(organization: Organization) -> AutomaticTopUp:
    """Return the settings; where nobody chose anything they are off, and not stored."""
    found = AutomaticTopUp.objects.filter(organization=organization).first()
    return found or AutomaticTopUp(organization=organization)


def choose(organization: Organization, choice: Choice, *, actor: str) -> AutomaticTopUp:
    """Store what the form says. Raises InvalidAutomaticTopUpError."""
    limits = bounds()
    if not limits.min_nanos <= choice.amount_nanos <= limits.max_nanos:
        raise InvalidAutomaticTopUpError(f"A top-up is {limits}.")
    if choice.max_day_nanos < choice.amount_nanos or choice.max_month_nanos < choice.amount_nanos:
        raise InvalidAutomaticTopUpError("The ceilings leave no room for one top-up.")
    if not (1 <= choice.max_day_count <= MAX_DAY_COUNT and 1 <= choice.max_month_count <= MAX_MONTH_COUNT):
        raise InvalidAutomaticTopUpError(f"At most {MAX_DAY_COUNT} a day and {MAX_MONTH_COUNT} a month, at least one.")
    with transaction.atomic():
        row = lock_settings(organization)
        if choice.is_on and not row.method_id:
            raise InvalidAutomaticTopUpError("Add a card first.")
        for name in Choice.__slots__:
            setattr(row, name, getattr(choice, name))
        row.changed_by, row.changed_at = actor, timezone.now()
        row.save()
    return row


def lock_settings(organization: Organization) -> AutomaticTopUp:
    """Lock the settings until the transaction ends, after making them where there are none."""
    AutomaticTopUp.objects.get_or_create(organization=organization)
    return AutomaticTopUp.objects.select_for_update(no_key=True).get(organization=organization)


def ask_for_card(organization: Organization) -> AutomaticTopUp:
    """Return the settings with a new `card_reference`, by which a page is opened on which a card is kept."""
    with transaction.atomic():
        row = lock_settings(organization)
        row.card_reference = uuid.uuid4()
        row.save(update_fields=["card_reference"])
    return row


def keep_card(event: CardSaved) -> bool:
    """Keep the card of the page that was opened last; another card is a new start. Returns whether it was new."""
    row = AutomaticTopUp.objects.select_for_update(no_key=True).filter(card_reference=event.reference).first()
    if row is None or (row.provider, row.method_id) == (event.provider, event.card.method_id):
        return False
    row.provider, row.customer_id, row.method_id = event.provider, event.card.customer_id, event.card.method_id
    row.method_label = event.card.label[:100]
    _start_anew(row)
    row.save()
    return True


def note_paid(top_up: TopUp) -> None:
    """A payment of the organization succeeded, in the same transaction: what had failed is over."""
    row = AutomaticTopUp.objects.select_for_update(no_key=True).filter(organization=top_up.organization).first()
    if row is not None and (row.failures or row.suspended_at or row.reason):
        _start_anew(row)
        row.save()
    clear_alert(top_up.organization, Alert.Kind.PAYMENT_FAILED)


def note_failed(top_up: TopUp) -> None:
    """A payment failed, in the same transaction. The third automatic one in a row suspends automatic top-up."""
    details = {"amount_nanos": top_up.amount_nanos, "reason": top_up.failure}
    if top_up.origin != TopUp.Origin.AUTOMATIC:
        if top_up.processing_since is not None:  # Whoever left a payment page, or was declined there, knows.
            raise_alert(top_up.organization, Alert.Kind.PAYMENT_FAILED, details=details)
        return
    row = lock_settings(top_up.organization)
    row.reason = top_up.failure[:MAX_REASON_CHARACTERS]
    kind = Alert.Kind.AUTOMATIC_TOP_UP_FAILED
    if row.failures >= FAILURES_THAT_SUSPEND and row.suspended_at is None:
        row.suspended_at = timezone.now()
        kind = Alert.Kind.AUTOMATIC_TOP_UP_SUSPENDED
    row.save(update_fields=["reason", "suspended_at"])
    raise_alert(top_up.organization, kind, details=details)


def count_attempt(row: AutomaticTopUp) -> None:
    """Count an attempt of locked settings before the provider is called: a crash counts, too."""
    row.next_attempt_at = timezone.now() + FIRST_WAIT * 2**row.failures
    row.failures += 1
    row.save(update_fields=["next_attempt_at", "failures"])


def _start_anew(row: AutomaticTopUp) -> None:
    row.failures, row.next_attempt_at, row.suspended_at, row.reason = 0, None, None, ""
    for kind in (Alert.Kind.AUTOMATIC_TOP_UP_FAILED, Alert.Kind.AUTOMATIC_TOP_UP_SUSPENDED):
        clear_alert(row.organization, kind)
