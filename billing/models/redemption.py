"""Redemption codes: promotional credit that whoever has the code may add to an organization."""

from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import Organization
from billing.models.approval import Approval
from billing.models.ledger import LedgerTransaction


class RedemptionCode(models.Model):
    """Only the SHA-256 of a code is stored; its text is shown once, when it is made."""

    code_sha256 = models.BinaryField(max_length=32, unique=True, editable=False)
    prefix = models.CharField(max_length=8, editable=False, help_text="What a person recognizes the code by.")
    amount_nanos = models.PositiveBigIntegerField()
    max_redemptions = models.PositiveIntegerField(default=1, help_text="How many organizations may redeem it.")
    redemption_count = models.PositiveIntegerField(default=0, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, help_text="From then on it cannot be redeemed.")
    lot_expires_at = models.DateTimeField(null=True, blank=True, help_text="From then on its credit cannot be spent.")
    lot_priority = models.PositiveSmallIntegerField(default=100)
    reason = models.CharField(max_length=150, help_text="What it is for. Members see it beside the credit.")
    approval = models.ForeignKey(
        Approval,
        models.PROTECT,
        null=True,
        blank=True,
        editable=False,
        related_name="codes",
        help_text="Nobody redeems it before that is applied.",
    )
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_by = models.CharField(max_length=254, blank=True, editable=False)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(condition=Q(amount_nanos__gt=0), name="redemption_code_is_worth_something"),
            models.CheckConstraint(
                condition=Q(redemption_count__lte=F("max_redemptions")), name="redemption_code_used_as_often_as_allowed"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.prefix}… ({self.reason})"


class Redemption(models.Model):
    """Immutable. An organization redeems a code once; the ledger transaction gave the credit."""

    code = models.ForeignKey(RedemptionCode, models.PROTECT, related_name="redemptions")
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="redemptions")
    ledger_transaction = models.OneToOneField(LedgerTransaction, models.PROTECT, related_name="redemption")
    redeemed_by = models.CharField(max_length=254)
    redeemed_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(fields=["code", "organization"], name="redemption_once_per_organization"),
        ]

    def __str__(self) -> str:
        return f"{self.organization}: {self.code}"


class RedemptionAttempts(models.Model):
    """How many codes an organization has tried in the hour of its latest attempt: guessing must not pay."""

    organization = models.OneToOneField(Organization, models.CASCADE, primary_key=True, related_name="+")
    hour = models.DateTimeField()
    attempts = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.organization_id}: {self.attempts}"
