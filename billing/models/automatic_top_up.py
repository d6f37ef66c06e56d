"""What an organization lets be paid by itself, what it is given each month, and what operators pay back."""

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Organization
from billing.models.payment import TopUp

USD = 1_000_000_000


class AutomaticTopUp(models.Model):
    """Off until somebody turns it on in its own form; nothing else does. One row for an organization that asked for it.

    `failures` counts attempts since the last success, each before the provider is called. `suspended_at` stops it until
    a payment succeeds or another card is kept.
    """

    organization = models.OneToOneField(Organization, models.PROTECT, primary_key=True, related_name="automatic_top_up")
    is_on = models.BooleanField(default=False)
    threshold_nanos = models.PositiveBigIntegerField(default=10 * USD, help_text="Below this balance it tops up.")
    amount_nanos = models.PositiveBigIntegerField(default=50 * USD)
    max_day_nanos = models.PositiveBigIntegerField(default=200 * USD)
    max_month_nanos = models.PositiveBigIntegerField(default=1_000 * USD)
    max_day_count = models.PositiveSmallIntegerField(default=3)
    max_month_count = models.PositiveSmallIntegerField(default=20)
    provider = models.CharField(max_length=30, blank=True)
    customer_id = models.CharField(max_length=200, blank=True)
    method_id = models.CharField(max_length=200, blank=True)
    method_label = models.CharField(max_length=100, blank=True)
    card_reference = models.UUIDField(
        default=uuid.uuid4, unique=True, help_text="What the provider knows the page by on which a card is kept."
    )
    failures = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True, blank=True, help_text="Not before; empty: at once.")
    suspended_at = models.DateTimeField(null=True, blank=True)
    reason = models.CharField(max_length=300, blank=True, help_text="Why it failed, was suspended, or waits.")
    changed_by = models.CharField(max_length=254, blank=True)
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "automatic top-up"
        constraints = [
            models.CheckConstraint(condition=Q(is_on=False) | ~Q(method_id=""), name="automatic_top_up_has_a_card"),
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="automatic_top_up_of_something"),
        ]

    def __str__(self) -> str:
        return f"Automatic top-up of {self.organization}"


class RecurringCredit(models.Model):
    """An amount that an organization is given at the beginning of each month, as a lot that ends with it. UTC."""

    organization = models.ForeignKey(Organization, models.PROTECT, related_name="recurring_credits")
    amount_nanos = models.PositiveBigIntegerField()
    first_month = models.DateField(help_text="The first day of the first month.")
    last_month = models.DateField(null=True, blank=True, help_text="The first day of the last month; empty: no end.")
    reason = models.CharField(max_length=150, help_text="What it is for. Members see it beside the credit.")
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name = "recurring credit"
        constraints = [
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="recurring_credit_of_something"),
            models.CheckConstraint(
                condition=Q(first_month__day=1) & (Q(last_month=None) | Q(last_month__day=1)),
                name="recurring_credit_by_whole_months",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reason} ({self.organization})"


class PaymentRefund(models.Model):
    """An operator's order to pay back a part of a top-up; it exists before the provider is asked, once for its key."""

    top_up = models.ForeignKey(TopUp, models.PROTECT, related_name="refunds")
    amount_nanos = models.PositiveBigIntegerField()
    idempotency_key = models.CharField(max_length=100)
    reason = models.CharField(max_length=200)
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    done_at = models.DateTimeField(null=True, blank=True, help_text="When the provider had said yes.")
    refused = models.CharField(max_length=300, blank=True, help_text="Why the provider said no.")

    class Meta:
        ordering = ["-id"]
        verbose_name = "payment refund"
        constraints = [
            models.UniqueConstraint(fields=["top_up", "idempotency_key"], name="payment_refund_once_for_its_key"),
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="payment_refund_of_something"),
        ]

    def __str__(self) -> str:
        return f"Refund of {self.top_up}"
