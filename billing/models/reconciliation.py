"""Reconciliation: what two books say of the same thing, where they differ, and how that was settled."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Organization
from billing.models.ledger import LedgerTransaction


class ReconciliationSource(models.TextChoices):
    ADMISSION = "admission", "Redis against Postgres"
    ROLL_UPS = "roll_ups", "Roll-ups against records"
    PROVIDER_USAGE = "provider_usage", "Records against the provider's usage"
    PROVIDER_COST = "provider_cost", "Records against the provider's cost"
    PAYMENTS = "payments", "Payments against the provider's list"
    LEDGER = "ledger", "The ledger against itself"


class ReconciliationRun(models.Model):
    """One comparison of one source, of a day or of now: what was compared, and what could not be, and why."""

    source = models.CharField(max_length=20, choices=ReconciliationSource.choices)
    day = models.DateField(null=True, blank=True, help_text="In UTC; empty where the state of now is compared.")
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)
    compared = models.PositiveBigIntegerField(default=0)
    found = models.PositiveIntegerField(default=0)
    note = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["source", "-started_at"], name="reconciliation_run_by_source")]

    def __str__(self) -> str:
        return f"{self.source} {self.day or ''}".strip()


class ReconciliationBreak(models.Model):
    """A difference, open until a person resolves it or it is no longer found. One open row for source and subject.

    `amount_nanos` is what we have less what the other side says; `amount_cents` the same, rounded away from zero.
    """

    class State(models.TextChoices):
        OPEN = "open", "Open"
        RESOLVED = "resolved", "Resolved"
        VANISHED = "vanished", "No longer found"

    class Resolution(models.TextChoices):
        POSTING = "posting", "By a posting"
        NOTE = "note", "By a note"

    source = models.CharField(max_length=20, choices=ReconciliationSource.choices)
    subject = models.CharField(max_length=200)
    day = models.DateField(null=True, blank=True)
    organization = models.ForeignKey(Organization, models.SET_NULL, null=True, blank=True, related_name="+")
    detail = models.CharField(max_length=1000)
    amount_nanos = models.BigIntegerField()
    amount_cents = models.BigIntegerField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.OPEN)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    found_at = models.DateTimeField(default=timezone.now)
    last_seen_at = models.DateTimeField(default=timezone.now)
    resolution = models.CharField(max_length=10, choices=Resolution.choices, blank=True)
    note = models.CharField(max_length=1000, blank=True)
    ledger_transaction = models.ForeignKey(
        LedgerTransaction, models.PROTECT, null=True, blank=True, related_name="+", help_text="What settled it."
    )
    resolved_by = models.CharField(max_length=254, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    gone_at = models.DateTimeField(null=True, blank=True, help_text="Since when it is no longer found.")

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["source", "subject"], condition=Q(state="open"), name="reconciliation_break_open_once"
            ),
            models.CheckConstraint(
                condition=~Q(state="resolved")
                | (~Q(resolved_by="") & ~Q(note="") & ~Q(resolution="") & Q(resolved_at__isnull=False)),
                name="reconciliation_break_says_how",
            ),
            models.CheckConstraint(
                condition=Q(resolution="posting", ledger_transaction__isnull=False)
                | (~Q(resolution="posting") & Q(ledger_transaction=None)),
                name="reconciliation_break_posting_is_named",
            ),
        ]
        indexes = [models.Index(fields=["source", "subject", "-id"], name="reconciliation_break_history")]

    def __str__(self) -> str:
        return f"{self.source}: {self.subject}"


class ProviderReport(models.Model):
    """That a provider has told of one day what was used, or what it costs. A later report of the day replaces it."""

    class Kind(models.TextChoices):
        USAGE = "usage", "Usage"
        COST = "cost", "Cost"

    kind = models.CharField(max_length=10, choices=Kind.choices)
    upstream = models.CharField(max_length=60)
    day = models.DateField()
    origin = models.CharField(max_length=300, help_text="The file or address that it came from.")
    imported_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["-day", "upstream", "kind"]
        constraints = [models.UniqueConstraint(fields=["kind", "upstream", "day"], name="provider_report_once")]

    def __str__(self) -> str:
        return f"{self.upstream} {self.day} ({self.kind})"


class ProviderReportLine(models.Model):
    """What a report says of one model of its day, or of none that it names. Costs only in reports of cost."""

    report = models.ForeignKey(ProviderReport, models.CASCADE, related_name="lines")
    upstream_model = models.CharField(max_length=200, blank=True)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cache_write_5m_tokens = models.BigIntegerField(default=0)
    cache_write_1h_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    web_searches = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["report", "upstream_model"]
        constraints = [models.UniqueConstraint(fields=["report", "upstream_model"], name="provider_report_line_once")]

    def __str__(self) -> str:
        return f"{self.report}: {self.upstream_model or 'no model'}"
