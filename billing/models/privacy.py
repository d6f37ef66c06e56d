"""How long an organization wants details of its requests kept, and that it wants to be deleted."""

from django.db import models
from django.utils import timezone

from accounts.models import Organization


class DataRetention(models.Model):
    """`details_days` of None keeps them. Everything before the UTC day `erased_before` is erased."""

    organization = models.OneToOneField(Organization, models.CASCADE, primary_key=True, related_name="data_retention")
    details_days = models.PositiveIntegerField(null=True, blank=True)
    erased_before = models.DateField(null=True, editable=False)
    changed_by = models.CharField(max_length=254, help_text="The actor.")
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        verbose_name = "data retention"
        verbose_name_plural = "data retention"

    def __str__(self) -> str:
        return f"{self.organization}: {self.details_days or 'all'} days"


class DeletionRequest(models.Model):
    """An owner's word that a closed organization be erased, some time from then on. Withdrawn, it has ended."""

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="deletion_requests")
    made_by = models.CharField(max_length=254, help_text="The actor.")
    made_at = models.DateTimeField(default=timezone.now, editable=False)
    erase_after = models.DateTimeField()
    waits_because = models.CharField(max_length=300, blank=True, default="", help_text="Why it was not erased in time.")
    ended_at = models.DateTimeField(null=True, editable=False)
    ended_by = models.CharField(max_length=254, blank=True, default="", editable=False, help_text="The actor.")

    class Meta:
        ordering = ["-made_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization"], condition=models.Q(ended_at=None), name="one_open_deletion_request"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.organization}: after {self.erase_after:%Y-%m-%d}"
