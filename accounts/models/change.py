"""The transactional outbox: one row for each change that Redis must learn of, written with the change."""

from django.db import models
from django.utils import timezone


class AdmissionChange(models.Model):
    """Points at what changed; whoever publishes it reads the current state, so doubled or late rows do no harm."""

    organization = models.ForeignKey("accounts.Organization", models.CASCADE, related_name="+")
    key = models.ForeignKey("accounts.ApiKey", models.CASCADE, null=True, blank=True, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.key_id or '-'}"
