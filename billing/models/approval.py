"""Money by two people: what an operator asked for, and who decided."""

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from accounts.models import Organization
from billing.models.ledger import LedgerTransaction


class Approval(models.Model):
    """One change of money that an operator asked for. Up to their own bound it was applied at once, by them alone.

    Above it waits for somebody else, until `expires_at`. `amount_nanos` is what counts against bounds, never negative;
    `terms` are the arguments of the change, as its kind takes them.
    """

    class Kind(models.TextChoices):
        GRANT = "grant", "Grant of credit"
        ADJUSTMENT = "adjustment", "Adjustment"
        CREDIT_LIMIT = "credit_limit", "Credit limit"
        PRICE_FACTOR = "price_factor", "Price factor"
        USAGE_REFUND = "usage_refund", "Refund of a request"
        PAYMENT_REFUND = "payment_refund", "Payment refund"
        RECURRING_CREDIT = "recurring_credit", "Recurring credit"
        CODES = "codes", "Redemption codes"
        RERATING = "rerating", "Re-rating"

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        APPLIED = "applied", "Applied"
        REFUSED = "refused", "Refused"
        WITHDRAWN = "withdrawn", "Withdrawn"
        EXPIRED = "expired", "Expired"

    kind = models.CharField(max_length=20, choices=Kind.choices)
    organization = models.ForeignKey(
        Organization,
        models.PROTECT,
        null=True,
        related_name="approvals",
        help_text="Empty for redemption codes and re-ratings.",
    )
    terms = models.JSONField()
    amount_nanos = models.PositiveBigIntegerField()
    reason = models.CharField(max_length=500)
    idempotency_key = models.CharField(max_length=260, unique=True)
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    asked_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="+")
    asked_at = models.DateTimeField(default=timezone.now, editable=False)
    shell_user = models.CharField(max_length=64, blank=True, help_text="The operating system's user of a command.")
    expires_at = models.DateTimeField()
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", help_text="Empty: applied by one person."
    )
    decided_at = models.DateTimeField(null=True)
    decision = models.CharField(max_length=500, blank=True, help_text="Why it was refused.")
    finished_at = models.DateTimeField(null=True, help_text="Of a re-rating: when the last of it was posted.")
    ledger_transaction = models.ForeignKey(LedgerTransaction, models.PROTECT, null=True, related_name="+")

    class Meta:
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["-id"], condition=Q(state="waiting"), name="approval_waiting"),
            models.Index(
                fields=["id"], condition=Q(kind="rerating", state="applied", finished_at=None), name="approval_to_post"
            ),
            models.Index(fields=["asked_by", "-asked_at"], name="approval_by_asker"),
            models.Index(fields=["organization", "-id"], name="approval_by_organization"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(decided_by=None) | ~Q(decided_by=F("asked_by")) | Q(state="withdrawn"),
                name="approval_by_a_second_person",
            ),
            models.CheckConstraint(
                condition=Q(state="waiting", decided_at=None) | (~Q(state="waiting") & Q(decided_at__isnull=False)),
                name="approval_is_decided_or_waits",
            ),
        ]
        permissions = [
            ("adjust_balance", "Can adjust a balance"),
            ("change_credit_limit", "Can change a credit limit"),
        ]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} #{self.pk}"

    @property
    def is_open(self) -> bool:
        return self.state == self.State.WAITING and self.expires_at > timezone.now()
