"""Double entry. Only billing.ledger writes these tables; triggers refuse what would break them (see the migration).

Signs: an entry is positive where it adds to what an organization has or the seller has earned, negative where it takes
away; the entries of a transaction sum to zero. So `prepaid` and `promotional` accounts of organizations are at or above
zero, `receivable` (what is owed) is at or below zero, and an organization's balance is the sum of its three accounts.
"""

from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Organization
from billing.money import say_usd


class LedgerAccount(models.Model):
    """System accounts are kept once for each shard, so that shards settle without waiting for each other."""

    class Kind(models.TextChoices):
        PREPAID = "prepaid", "Prepaid"
        PROMOTIONAL = "promotional", "Promotional"
        RECEIVABLE = "receivable", "Receivable"
        REVENUE = "revenue", "Revenue"
        CASH = "cash", "Cash"
        PROMOTION_EXPENSE = "promotion_expense", "Promotion expense"
        BREAKAGE = "breakage", "Breakage"
        ORPHAN_LOSS = "orphan_loss", "Orphan loss"
        UPSTREAM_COST = "upstream_cost", "Upstream cost"
        TAX_OWED = "tax_owed", "Tax owed"

    ORGANIZATION_KINDS = (Kind.PREPAID, Kind.PROMOTIONAL, Kind.RECEIVABLE)

    organization = models.ForeignKey(
        Organization, models.PROTECT, null=True, blank=True, related_name="ledger_accounts"
    )
    kind = models.CharField(max_length=20, choices=Kind.choices)
    shard = models.PositiveSmallIntegerField(null=True, blank=True)
    payment_provider = models.CharField(max_length=30, blank=True)
    balance_nanos = models.BigIntegerField(default=0)
    last_seq = models.PositiveBigIntegerField(default=0)

    class Meta:
        ordering = ["id"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "kind"],
                condition=Q(organization__isnull=False),
                name="ledger_account_once_per_organization",
            ),
            models.UniqueConstraint(
                fields=["kind", "shard", "payment_provider"],
                condition=Q(organization=None),
                name="ledger_account_once_per_house",
            ),
            models.CheckConstraint(
                condition=Q(organization__isnull=False, shard=None) | Q(organization=None, shard__isnull=False),
                name="ledger_account_of_organization_or_house",
            ),
            models.CheckConstraint(
                condition=~Q(kind__in=["prepaid", "promotional"]) | Q(balance_nanos__gte=0),
                name="ledger_account_credit_not_below_zero",
            ),
            models.CheckConstraint(
                condition=~Q(kind="receivable") | Q(balance_nanos__lte=0),
                name="ledger_account_receivable_not_above_zero",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization or 'system'} · {self.get_kind_display()}"


class LedgerTransaction(models.Model):
    """Immutable. `idempotency_key` with `input_sha256`: same key and input, same effect once; other input, an error."""

    class Kind(models.TextChoices):
        USAGE = "usage", "Usage"
        TOP_UP = "top_up", "Top-up"
        PROMOTION = "promotion", "Promotional credit"
        ADJUSTMENT = "adjustment", "Adjustment"
        EXPIRY = "expiry", "Expiry"
        REFUND = "refund", "Refund"
        RERATING = "rerating", "Re-rating"
        ORPHAN_LOSS = "orphan_loss", "Orphan loss"
        CORRECTION = "correction", "Correction"
        REVERSAL = "reversal", "Payment reversal"
        TAX = "tax", "Tax"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    idempotency_key = models.CharField(max_length=200, unique=True)
    input_sha256 = models.BinaryField(max_length=32)
    organization = models.ForeignKey(
        Organization, models.PROTECT, null=True, blank=True, related_name="ledger_transactions"
    )
    actor = models.CharField(max_length=254)
    reason = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    entry_count = models.PositiveSmallIntegerField(
        null=True, editable=False, help_text="How many entries it was written with; empty in older transactions."
    )
    seal = models.BinaryField(
        max_length=32, null=True, help_text="Of all that it was written with; empty in older transactions."
    )

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["organization", "-id"], name="ledger_transaction_by_org"),
            # Of all but usage, which is nearly all there is.
            models.Index(fields=["organization", "-id"], condition=~Q(kind="usage"), name="credit_transaction_by_org"),
            models.Index(fields=["kind", "-id"], condition=~Q(kind="usage"), name="credit_transaction_by_kind"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.pk}"


class LedgerEntry(models.Model):
    transaction = models.ForeignKey(LedgerTransaction, models.PROTECT, related_name="entries")
    account = models.ForeignKey(LedgerAccount, models.PROTECT, related_name="entries")
    seq = models.PositiveBigIntegerField()
    amount_nanos = models.BigIntegerField()
    balance_after_nanos = models.BigIntegerField()

    class Meta:
        ordering = ["account", "seq"]
        verbose_name_plural = "ledger entries"
        constraints = [
            models.UniqueConstraint(fields=["account", "seq"], name="ledger_entry_seq_once"),
            models.CheckConstraint(condition=~Q(amount_nanos=0), name="ledger_entry_not_zero"),
        ]

    def __str__(self) -> str:
        return f"{self.account_id}#{self.seq}: {say_usd(self.amount_nanos)}"


class OrganizationBalance(models.Model):
    """The posted balance. Every posting locks this row first and raises `version`, which orders credit in Redis."""

    organization = models.OneToOneField(Organization, models.PROTECT, primary_key=True, related_name="balance")
    posted_nanos = models.BigIntegerField(default=0)
    version = models.PositiveBigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.organization}: {say_usd(self.posted_nanos)}"


class LedgerSealKey(models.Model):
    """What ledger transactions are sealed by, encrypted under DJANGO_SECRET_KEY. More than one where a key was lost.

    What was posted up to `after_transaction_id` has no seal; what is posted by processes of before, neither.
    """

    sealed_key = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    after_transaction_id = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"Seal key {self.pk}"
