"""Credit lots: the parts of a balance, each with its own origin, expiry and priority."""

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import Organization
from billing.models.ledger import LedgerTransaction
from billing.money import say_usd


class CreditLot(models.Model):
    """`remaining_nanos` is drawn down; each draw is a CreditLotEntry. Lower `priority` burns first."""

    class Kind(models.TextChoices):
        PAID = "paid", "Paid"
        PROMOTIONAL = "promotional", "Promotional"

    organization = models.ForeignKey(Organization, models.PROTECT, related_name="credit_lots")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    origin = models.CharField(max_length=200, help_text="Where the credit came from: welcome, payment, code.")
    amount_nanos = models.PositiveBigIntegerField()
    remaining_nanos = models.PositiveBigIntegerField()
    priority = models.PositiveSmallIntegerField(default=100)
    expires_at = models.DateTimeField(null=True, blank=True)
    expired_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["organization", "priority", F("expires_at").asc(nulls_last=True), "-kind", "id"]
        indexes = [
            models.Index(
                fields=["organization", "priority", "expires_at"],
                condition=Q(remaining_nanos__gt=0),
                name="credit_lot_to_burn",
            )
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(remaining_nanos__gte=0, remaining_nanos__lte=F("amount_nanos")),
                name="credit_lot_remaining_in_bounds",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} · {self.origin}"


class CreditLotEntry(models.Model):
    """Immutable: what one ledger transaction put into a lot (positive) or drew from it (negative)."""

    lot = models.ForeignKey(CreditLot, models.PROTECT, related_name="entries", db_index=False)
    transaction = models.ForeignKey(LedgerTransaction, models.PROTECT, related_name="lot_entries")
    amount_nanos = models.BigIntegerField()
    remaining_after_nanos = models.PositiveBigIntegerField()

    class Meta:
        ordering = ["id"]
        verbose_name_plural = "credit lot entries"
        indexes = [models.Index(fields=["lot", "id"], name="lot_entry_by_lot")]

    def __str__(self) -> str:
        return f"{self.lot_id}: {say_usd(self.amount_nanos)}"
