"""Re-rating: what a past window costs by a corrected price. The usage records stay as they are."""

from django.db import models
from django.utils import timezone

from billing.models.catalog import LanguageModel
from billing.models.price import PriceVersion
from billing.money import say_usd


class Rerating(models.Model):
    """One run: the requests of `language_model` in a window, priced again by `price_version`."""

    language_model = models.ForeignKey(LanguageModel, models.PROTECT, related_name="reratings")
    price_version = models.ForeignKey(PriceVersion, models.PROTECT, related_name="reratings")
    begins = models.DateTimeField()
    ends = models.DateTimeField()
    actor = models.CharField(max_length=254)
    reason = models.CharField(max_length=500)
    approval = models.ForeignKey(
        "Approval",
        models.PROTECT,
        null=True,
        related_name="reratings",
        help_text="Who decided it. One that was cut short is gone on with by a run of its own.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-id"]
        verbose_name = "re-rating"

    def __str__(self) -> str:
        return f"Re-rating {self.pk}"


class ReratedRequest(models.Model):
    """Immutable. What one request costs since a re-rating; the latest row of a request counts."""

    rerating = models.ForeignKey(Rerating, models.PROTECT, related_name="requests")
    request_id = models.UUIDField()
    organization_id = models.BigIntegerField()
    cost_before_nanos = models.BigIntegerField()
    cost_after_nanos = models.BigIntegerField()
    ledger_transaction_id = models.BigIntegerField()

    class Meta:
        ordering = ["id"]
        verbose_name = "re-rated request"
        indexes = [
            models.Index(fields=["request_id", "-id"], name="rerated_by_request"),
            models.Index(fields=["ledger_transaction_id"], name="rerated_by_transaction"),
        ]
        constraints = [models.UniqueConstraint(fields=["rerating", "request_id"], name="rerated_once_in_a_run")]

    def __str__(self) -> str:
        return f"{self.request_id}: {say_usd(self.cost_before_nanos)} -> {say_usd(self.cost_after_nanos)}"
