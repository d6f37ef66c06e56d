"""The truth about an orphan: what a request used after all, when its event arrives after it was judged an orphan."""

from django.db import models

from billing.money import say_usd


class UsageCorrection(models.Model):
    """Immutable. One for a request at most: the orphan's record stays, and this says what was true.

    Counts are the true ones. `cost_before_nanos` is what the request cost until then, `cost_after_nanos` what it costs
    since; the ledger transaction posts the difference, and is empty where there is none.
    """

    class Outcome(models.TextChoices):
        BILLED = "billed", "Billed"
        FAILED = "failed", "Failed"

    request_id = models.UUIDField(primary_key=True)
    organization_id = models.BigIntegerField()
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    usage_source = models.CharField(max_length=10)
    input_tokens = models.BigIntegerField()
    output_tokens = models.BigIntegerField()
    cache_write_5m_tokens = models.BigIntegerField()
    cache_write_1h_tokens = models.BigIntegerField()
    cache_read_tokens = models.BigIntegerField()
    images = models.BigIntegerField()
    web_searches = models.BigIntegerField()
    cost_before_nanos = models.BigIntegerField()
    cost_after_nanos = models.BigIntegerField()
    upstream_cost_before_nanos = models.BigIntegerField()
    upstream_cost_after_nanos = models.BigIntegerField()
    attempts = models.JSONField(default=list)
    ledger_transaction_id = models.BigIntegerField(null=True, help_text="Empty when the cost stayed the same.")
    settled_at = models.DateTimeField()

    class Meta:
        ordering = ["-request_id"]
        indexes = [
            models.Index(fields=["ledger_transaction_id"], name="correction_by_transaction"),
            models.Index(fields=["organization_id", "-request_id"], name="correction_by_organization"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id}: {say_usd(self.cost_before_nanos)} -> {say_usd(self.cost_after_nanos)}"

    @property
    def difference_nanos(self) -> int:
        return self.cost_after_nanos - self.cost_before_nanos
