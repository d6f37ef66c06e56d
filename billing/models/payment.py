"""Payments: orders of credit, what payment providers said of their money, and what was taken back.

Written by `billing.payments` only. A receipt or an invoice reads a paid order: `amount_nanos` (what was credited),
`paid_nanos` (what the provider took; less where it was discounted), `currency`, `paid_at`, `payment_method`,
`payment_id`, `charge_id`, `ledger_transaction` (the credit), `reversed_nanos` and its rows `reversals` (what was taken
back).
"""

import uuid

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import Organization
from billing.models.ledger import LedgerTransaction
from billing.money import Currency


class TopUp(models.Model):
    """An order of credit. It exists before anybody sees a payment page; its terms never change, and it is kept.

    pending -> paid or failed; failed -> paid where the provider has the money after all; paid -> refunded once all of
    it was taken back. `ledger_transaction` is there exactly where the order was credited, once, with `amount_nanos`.
    """

    class State(models.TextChoices):
        PENDING = "pending", "Pending"
        PAID = "paid", "Paid"
        FAILED = "failed", "Failed"
        REFUNDED = "refunded", "Refunded"

    class Origin(models.TextChoices):
        CONSOLE = "console", "Console"
        API = "api", "API"
        AUTOMATIC = "automatic", "Automatic"

    CREDITED_STATES = (State.PAID, State.REFUNDED)

    organization = models.ForeignKey(Organization, models.PROTECT, related_name="top_ups")
    reference = models.UUIDField(
        default=uuid.uuid4, unique=True, editable=False, help_text="What the payment provider knows the order by."
    )
    amount_nanos = models.PositiveBigIntegerField(help_text="What is credited once it is paid, in nano-dollars.")
    currency = models.CharField(max_length=3, choices=[(Currency.USD.value, "USD")], default=Currency.USD.value)
    provider = models.CharField(max_length=30)
    origin = models.CharField(max_length=10, choices=Origin.choices, default=Origin.CONSOLE)
    state = models.CharField(max_length=10, choices=State.choices, default=State.PENDING)
    idempotency_key = models.CharField(max_length=100)
    checkout_id = models.CharField(max_length=200, blank=True)
    checkout_url = models.TextField(blank=True)
    payment_id = models.CharField(max_length=200, blank=True)
    charge_id = models.CharField(max_length=200, blank=True)
    payment_method = models.CharField(max_length=100, blank=True, help_text='Such as "Visa ending in 4242".')
    processing_since = models.DateTimeField(
        null=True, blank=True, help_text="The customer has done their part, and the money is on its way."
    )
    paid_nanos = models.PositiveBigIntegerField(null=True, blank=True, help_text="What the provider took.")
    reversed_nanos = models.PositiveBigIntegerField(default=0, help_text="How much of the credit was taken back.")
    failure = models.CharField(max_length=300, blank=True, help_text="Why it failed, for the customer.")
    ledger_transaction = models.OneToOneField(
        LedgerTransaction, models.PROTECT, null=True, blank=True, related_name="top_up"
    )
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    paid_at = models.DateTimeField(null=True, blank=True)
    failed_at = models.DateTimeField(null=True, blank=True)
    checked_at = models.DateTimeField(null=True, blank=True, help_text="When the provider was last asked about it.")

    class Meta:
        ordering = ["-id"]
        verbose_name = "top-up"
        indexes = [
            models.Index(fields=["organization", "-id"], name="top_up_by_organization"),
            models.Index(fields=["provider", "id"], condition=Q(state="pending"), name="top_up_pending"),
            models.Index(fields=["provider", "paid_at"], name="top_up_paid"),
        ]
        constraints = [
            models.UniqueConstraint(fields=["organization", "idempotency_key"], name="top_up_once_for_its_key"),
            models.UniqueConstraint(
                fields=["provider", "checkout_id"], condition=~Q(checkout_id=""), name="top_up_once_for_its_checkout"
            ),
            models.UniqueConstraint(
                fields=["provider", "payment_id"], condition=~Q(payment_id=""), name="top_up_once_for_its_payment"
            ),
            models.UniqueConstraint(
                fields=["provider", "charge_id"], condition=~Q(charge_id=""), name="top_up_once_for_its_charge"
            ),
            models.UniqueConstraint(
                fields=["organization"],
                condition=Q(state="pending", origin="automatic"),
                name="top_up_one_automatic_pending",
            ),
            models.CheckConstraint(condition=Q(currency="USD"), name="top_up_in_usd"),
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="top_up_of_something"),
            models.CheckConstraint(
                condition=Q(state__in=["paid", "refunded"], ledger_transaction__isnull=False, paid_nanos__isnull=False)
                | Q(state__in=["pending", "failed"], ledger_transaction=None),
                name="top_up_credited_where_paid",
            ),
            models.CheckConstraint(
                condition=Q(reversed_nanos__lte=F("amount_nanos")), name="top_up_reversed_at_most_whole"
            ),
        ]

    def __str__(self) -> str:
        return f"Top-up {self.pk}"


class PaymentMovement(models.Model):
    """Immutable but for `top_up`: what a payment provider said of its money after the payment, once for its reference.

    What is taken back is derived from all of them, so their order does not matter. A movement whose charge belongs to
    no order that we know waits with an empty `top_up`: that is a break, until the order is known.
    """

    class Kind(models.TextChoices):
        REFUND_TOTAL = "refund_total", "Refunded in all"
        REFUND_FAILED = "refund_failed", "Refund failed"
        DISPUTE_WITHDRAWN = "dispute_withdrawn", "Dispute: funds withdrawn"
        DISPUTE_REINSTATED = "dispute_reinstated", "Dispute: funds reinstated"

    top_up = models.ForeignKey(TopUp, models.PROTECT, null=True, blank=True, related_name="movements")
    provider = models.CharField(max_length=30)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    reference = models.CharField(max_length=200, help_text="The provider's id of the refund or dispute.")
    payment_id = models.CharField(max_length=200, blank=True)
    charge_id = models.CharField(max_length=200, blank=True)
    amount_nanos = models.PositiveBigIntegerField()
    occurred_at = models.DateTimeField()
    recorded_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "kind", "reference"], name="payment_movement_once"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.reference}"


class PaymentReversal(models.Model):
    """Immutable: one ledger transaction that took credit of an order back; below zero, one that gave it back again."""

    top_up = models.ForeignKey(TopUp, models.PROTECT, related_name="reversals")
    number = models.PositiveIntegerField(help_text="From 1 for each order.")
    ledger_transaction = models.OneToOneField(LedgerTransaction, models.PROTECT, related_name="payment_reversal")
    amount_nanos = models.BigIntegerField(help_text="What was taken from the balance.")
    cash_nanos = models.BigIntegerField(help_text="What of it the provider paid out; the rest was a discount.")
    reason = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(fields=["top_up", "number"], name="payment_reversal_number_once"),
            models.CheckConstraint(condition=~Q(amount_nanos=0), name="payment_reversal_of_something"),
        ]

    def __str__(self) -> str:
        return f"{self.top_up}: reversal {self.number}"


class PaymentBreak(models.Model):
    """What payments and our books disagree about, until somebody says how it was resolved. Once for its reference."""

    class Kind(models.TextChoices):
        LATE_FAILURE = "late_failure", "Failed after it was credited"
        UNATTRIBUTED = "unattributed", "Of no order that we know"
        FOREIGN_CURRENCY = "foreign_currency", "In another currency"
        OVERPAID = "overpaid", "Paid more than ordered"
        MISMATCHED = "mismatched", "Names an order that is not its own"
        UNANSWERED = "unanswered", "A refund without an answer"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    provider = models.CharField(max_length=30)
    reference = models.CharField(max_length=200)
    top_up = models.ForeignKey(TopUp, models.PROTECT, null=True, blank=True, related_name="breaks")
    amount_nanos = models.BigIntegerField(default=0)
    detail = models.CharField(max_length=500)
    found_at = models.DateTimeField(default=timezone.now, editable=False)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolved_by = models.CharField(max_length=254, blank=True)
    resolution = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "kind", "reference"], name="payment_break_once"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()}: {self.reference}"


class PaymentDispute(models.Model):
    """A customer's bank took the side of its card holder. Information: only movements of funds move money."""

    provider = models.CharField(max_length=30)
    dispute_id = models.CharField(max_length=200)
    top_up = models.ForeignKey(TopUp, models.PROTECT, null=True, blank=True, related_name="disputes")
    status = models.CharField(max_length=40)
    status_as_of = models.DateTimeField()
    opened_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["provider", "dispute_id"], name="payment_dispute_once"),
        ]

    def __str__(self) -> str:
        return f"{self.dispute_id}: {self.status}"
