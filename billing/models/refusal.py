"""Requests that were refused before anything was held. They cost nothing, and are kept for a while to be looked up."""

from datetime import datetime

from django.db import models


class RefusedRequest(models.Model):
    """One request of a known key that got an error before it was admitted. Never needed to bill.

    `repeats` counts refusals like this one, within the same minute, that were not kept for themselves. No foreign keys:
    rows outlive keys. `model_id` is what the client wrote.
    """

    request_id = models.UUIDField(primary_key=True)
    organization_id = models.BigIntegerField()
    key_id = models.BigIntegerField()
    endpoint = models.CharField(max_length=20)
    model_id = models.CharField(max_length=100, blank=True)
    status = models.SmallIntegerField()
    error_code = models.CharField(max_length=60)
    message = models.CharField(max_length=1000)
    repeats = models.IntegerField(default=0)
    # Gateways that do not know these columns yet go on inserting rows.
    end_user = models.CharField(max_length=256, blank=True, db_default="")
    tag = models.CharField(max_length=64, blank=True, db_default="")
    session = models.CharField(max_length=128, blank=True, db_default="")
    refused_at = models.DateTimeField()

    class Meta:
        ordering = ["-request_id"]
        indexes = [
            models.Index(fields=["organization_id", "-request_id"], name="refused_by_organization"),
            models.Index(fields=["organization_id", "key_id", "-request_id"], name="refused_by_key"),
            models.Index(fields=["refused_at"], name="refused_by_time"),
        ]

    def __str__(self) -> str:
        return f"{self.request_id} {self.error_code}"

    # What a list of requests of every kind asks of each.

    @property
    def admitted_at(self) -> datetime:
        return self.refused_at

    @property
    def settled_at(self) -> datetime:
        return self.refused_at

    @property
    def total_ms(self) -> int:
        return 0
