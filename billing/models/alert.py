"""Alerts: what an organization's people should know before it costs them, raised once and cleared when it is over."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import ApiKey, Organization


class Alert(models.Model):
    """Open from `raised_at` to `cleared_at`. Of one kind and subject an organization has one open alert at most.

    `subject` says what it is about within its kind: `month:24310`, `key:7:day:20785`, `endpoint:3`; "" where the kind
    says all. `details` are the figures of the moment it was raised, amounts in nano-dollars under names that end so.
    `notified_at` is when mails and webhooks were queued; None while that is still to come.
    """

    class Kind(models.TextChoices):
        LOW_BALANCE = "low_balance", "Low balance"
        BALANCE_EXHAUSTED = "balance_exhausted", "Balance used up"
        BUDGET_WARNING = "budget_warning", "Budget nearly used up"
        BUDGET_REACHED = "budget_reached", "Budget used up"
        SPEND_SPIKE = "spend_spike", "Unusual spend"
        PROJECTED_OVER_BUDGET = "projected_over_budget", "Projected above budget"
        KEY_EXPIRING = "key_expiring", "Key about to expire"
        PRICE_CHANGE = "price_change", "Price change"
        MODEL_RETIRING = "model_retiring", "Model retires"
        AUTOMATIC_TOP_UP_FAILED = "automatic_top_up_failed", "Automatic top-up failed"
        AUTOMATIC_TOP_UP_SUSPENDED = "automatic_top_up_suspended", "Automatic top-up suspended"
        PAYMENT_FAILED = "payment_failed", "Payment failed"
        WEBHOOK_FAILING = "webhook_failing", "Webhook failing"
        WEBHOOK_SWITCHED_OFF = "webhook_switched_off", "Webhook switched off"

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="alerts")
    kind = models.CharField(max_length=30, choices=Kind.choices)
    subject = models.CharField(max_length=100, blank=True)
    key = models.ForeignKey(ApiKey, models.CASCADE, null=True, blank=True, related_name="+")
    details = models.JSONField(default=dict)
    raised_at = models.DateTimeField(default=timezone.now, editable=False)
    cleared_at = models.DateTimeField(null=True, blank=True, editable=False)
    notified_at = models.DateTimeField(null=True, blank=True, editable=False)
    clearing_told = models.BooleanField(
        default=False, db_default=False, editable=False, help_text="Webhooks know that it is over."
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "kind", "subject"], condition=Q(cleared_at=None), name="alert_open_once"
            )
        ]
        indexes = [
            models.Index(fields=["organization", "-id"], name="alert_by_organization"),
            models.Index(fields=["id"], condition=Q(notified_at=None, cleared_at=None), name="alert_to_notify"),
            models.Index(fields=["notified_at"], name="alert_by_notice"),
            models.Index(
                fields=["id"],
                condition=Q(notified_at__isnull=False, cleared_at__isnull=False, clearing_told=False),
                name="alert_clearing_to_tell",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject}".strip()

    @property
    def is_open(self) -> bool:
        return self.cleared_at is None


class AlertSettings(models.Model):
    """What an organization chose. One without a row has these defaults."""

    organization = models.OneToOneField(Organization, models.CASCADE, primary_key=True, related_name="alert_settings")
    low_balance_nanos = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="Empty: three usual days, at least a dollar. Zero: never."
    )
    budget_warning_percent = models.PositiveSmallIntegerField(default=80)
    spike_percent = models.PositiveIntegerField(
        default=300, help_text="Of a usual day, from which on a day's spend is unusual."
    )
    spike_minimum_nanos = models.PositiveBigIntegerField(
        default=5_000_000_000, help_text="A day that costs less is never unusual."
    )
    mails_owners = models.BooleanField(default=True)
    mails_admins = models.BooleanField(default=False)
    mails_billing = models.BooleanField(default=True)
    mails_key_makers = models.BooleanField(default=True)
    muted_kinds = ArrayField(models.CharField(max_length=30), default=list, blank=True)

    class Meta:
        verbose_name_plural = "alert settings"
        constraints = [
            models.CheckConstraint(
                condition=Q(budget_warning_percent__gte=1, budget_warning_percent__lte=99),
                name="alert_settings_warning_below_budget",
            ),
            models.CheckConstraint(condition=Q(spike_percent__gte=110), name="alert_settings_spike_above_usual"),
        ]

    def __str__(self) -> str:
        return str(self.organization)
