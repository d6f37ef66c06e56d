"""How long an organization wants details of its requests kept."""

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
