"""What was used. A usage record is immutable and inserted in the same transaction as its debit."""

from django.contrib.postgres.indexes import BrinIndex
from django.db import models
from django.utils import timezone

from accounts.models import Organization


class UsageRecord(models.Model):
    """One billed response. The request id is the only de-duplicator in the system.

    The table is partitioned by month ranges of the id, a UUIDv7 (see the migration). No foreign keys: rows outlive keys
    and models, and the insert is the hottest statement here. `admitted_day` counts UTC days since 1970-01-01 on Redis'
    clock.
    """

    class Source(models.TextChoices):
        PROVIDER = "provider", "Provider"
        ESTIMATED = "estimated", "Estimated"
        PARTIAL = "partial", "Partial"
        ORPHAN = "orphan", "Orphan"
        BOUNDED = "bounded", "Bounded"

    request_id = models.UUIDField(primary_key=True)
    organization_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    language_model_id = models.BigIntegerField()
    model_id = models.CharField(max_length=100)
    price_version_id = models.BigIntegerField()
    factor_ppm = models.BigIntegerField(help_text="The organization's markup or discount; 1,000,000 is none.")
    usage_source = models.CharField(max_length=10, choices=Source.choices)
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cache_write_5m_tokens = models.BigIntegerField()
    cache_write_1h_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    images = models.BigIntegerField()
    web_searches = models.BigIntegerField()
    cost_nanos = models.BigIntegerField()
    hold_nanos = models.BigIntegerField()
    upstream = models.CharField(max_length=60)
    upstream_cost_nanos = models.BigIntegerField(help_text="All attempts together.")
    attempts = models.JSONField(default=list)
    is_streamed = models.BooleanField()
    admitted_at = models.DateTimeField()
    admitted_day = models.IntegerField()
    first_byte_ms = models.IntegerField(null=True)
    total_ms = models.IntegerField()
    ledger_transaction_id = models.BigIntegerField(null=True, help_text="Empty when the cost was zero.")
    settled_at = models.DateTimeField()

    class Meta:
        ordering = ["-request_id"]
        indexes = [
            models.Index(fields=["organization_id", "-request_id"], name="usage_by_organization"),
            models.Index(fields=["organization_id", "key_id", "-request_id"], name="usage_by_key"),
            models.Index(fields=["ledger_transaction_id"], name="usage_by_transaction"),
            models.Index(
                fields=["settled_at"], condition=models.Q(ledger_transaction_id=None), name="usage_free_by_settlement"
            ),
            # Small, for reading whole months: rows come nearly in the order of their admission.
            BrinIndex(fields=["admitted_at"], opclasses=["timestamptz_minmax_multi_ops"], name="usage_by_admission"),
        ]

    def __str__(self) -> str:
        return str(self.request_id)


class FailedRequest(models.Model):
    """An admitted request whose hold was released: no upstream served it, nothing was billed."""

    request_id = models.UUIDField(primary_key=True)
    organization_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    model_id = models.CharField(max_length=100)
    error_code = models.CharField(max_length=60)
    attempts = models.JSONField(default=list)
    upstream_cost_nanos = models.BigIntegerField(default=0)
    admitted_at = models.DateTimeField()
    total_ms = models.IntegerField()
    settled_at = models.DateTimeField()

    class Meta:
        ordering = ["-request_id"]
        indexes = [
            models.Index(fields=["organization_id", "-request_id"], name="failed_by_organization"),
            models.Index(fields=["organization_id", "key_id", "-request_id"], name="failed_by_key"),
        ]

    def __str__(self) -> str:
        return str(self.request_id)


class FailedDay(models.Model):
    """How many failed requests an organization had that were admitted on one UTC day. A trigger counts, nobody else."""

    organization_id = models.BigIntegerField()
    admitted_day = models.IntegerField()
    requests = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-admitted_day"]
        constraints = [models.UniqueConstraint(fields=["organization_id", "admitted_day"], name="failed_day_once")]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.admitted_day}: {self.requests}"


class RequestDetail(models.Model):
    """What may be erased: who asked, in the client's own words. Never needed to bill."""

    request_id = models.UUIDField(primary_key=True)
    organization_id = models.BigIntegerField()
    end_user = models.CharField(max_length=256, blank=True, help_text="Named by metadata.user_id of the request.")
    # Workers that do not know these columns yet go on inserting rows.
    tag = models.CharField(max_length=64, blank=True, db_default="")
    session = models.CharField(max_length=128, blank=True, db_default="")
    client = models.CharField(max_length=200, blank=True, help_text="The user-agent header.")
    stop_reason = models.CharField(max_length=40, blank=True)
    upstream_request_id = models.CharField(max_length=100, blank=True)
    is_attributed = models.BooleanField(db_default=False, help_text="Its usage record counts in AttributedDay.")

    class Meta:
        # By each of the three, for the requests of one of them: only rows that have it.
        indexes = [
            models.Index(
                fields=["organization_id", name, "-request_id"],
                condition=~models.Q(**{name: ""}),
                name=f"detail_by_{name}",
            )
            for name in ("end_user", "tag", "session")
        ]

    def __str__(self) -> str:
        return str(self.request_id)


class UsageHour(models.Model):
    """Hourly roll-up by organization, key and language model: what pages read instead of records."""

    organization_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    model_id = models.CharField(max_length=100)
    hour = models.DateTimeField()
    requests = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)
    upstream_cost_nanos = models.BigIntegerField(default=0)
    # Workers that do not know these columns yet go on adding rows. What they mean stands in roll_up.py.
    timed_requests = models.BigIntegerField(db_default=0)
    first_byte_ms = models.BigIntegerField(db_default=0)
    duration_ms = models.BigIntegerField(db_default=0)

    class Meta:
        ordering = ["-hour"]
        constraints = [
            models.UniqueConstraint(fields=["organization_id", "hour", "key_id", "model_id"], name="usage_hour_once"),
        ]
        indexes = [BrinIndex(fields=["hour"], opclasses=["timestamptz_minmax_multi_ops"], name="usage_hour_by_hour")]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.hour:%Y-%m-%d %H}h"


class BudgetDay(models.Model):
    """What a key, or with key 0 the whole organization, spent on requests admitted on one UTC day. Weeks are sums."""

    organization_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    admitted_day = models.IntegerField()
    cost_nanos = models.BigIntegerField(default=0)
    last_admitted_at = models.DateTimeField(null=True, help_text="Of the latest billed request that it sums.")

    class Meta:
        ordering = ["-admitted_day"]
        constraints = [
            models.UniqueConstraint(fields=["organization_id", "key_id", "admitted_day"], name="budget_day_once"),
        ]
        indexes = [
            # Alerts read the latest days of all organizations at once.
            models.Index(
                fields=["admitted_day", "organization_id"], condition=models.Q(key_id=0), name="budget_day_by_day"
            ),
            BrinIndex(fields=["admitted_day"], opclasses=["int4_minmax_multi_ops"], name="budget_day_by_month"),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.key_id} {self.admitted_day}"


class UsageQuarantine(models.Model):
    """A usage event that could not be settled, kept whole for an operator. Each open row counts as a break."""

    class Resolution(models.TextChoices):
        SETTLED = "settled", "Settled"
        DISCARDED = "discarded", "Discarded"

    organization = models.ForeignKey(Organization, models.PROTECT, null=True, related_name="+")
    shard = models.PositiveSmallIntegerField()
    stream_id = models.CharField(max_length=40)
    raw_event = models.BinaryField()
    reason = models.TextField()
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    resolved_at = models.DateTimeField(null=True, blank=True, editable=False)
    resolved_by = models.CharField(max_length=254, blank=True, editable=False)
    # Workers that do not know these columns yet go on inserting rows.
    resolution = models.CharField(max_length=10, choices=Resolution.choices, db_default="", blank=True, editable=False)
    resolution_reason = models.CharField(max_length=500, db_default="", blank=True, editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name_plural = "usage quarantine"
        constraints = [models.UniqueConstraint(fields=["shard", "stream_id"], name="quarantine_once")]

    def __str__(self) -> str:
        return f"{self.shard}/{self.stream_id}"
