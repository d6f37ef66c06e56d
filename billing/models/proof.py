"""Months of the books that were proven. Written once by the nightly check, and never changed."""

from datetime import date

from django.db import models
from django.utils import timezone


class ProvenMonth(models.Model):
    """A month whose rows agreed with each other, and digests of those that never change, so that a change shows.

    It covers transactions with after_transaction_id < id <= last_transaction_id with all that they posted, and what is
    admitted from `begins` until before `ends`; an empty bound is none. Months follow each other without a gap, and each
    `sha256` is over the one before, too. `form` says which columns were digested.
    """

    month = models.CharField(max_length=7, unique=True)
    after_transaction_id = models.BigIntegerField(null=True)
    last_transaction_id = models.BigIntegerField()
    begins = models.DateTimeField(null=True)
    ends = models.DateTimeField()
    form = models.PositiveSmallIntegerField()
    digests = models.JSONField()
    sha256 = models.CharField(max_length=64)
    proven_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["month"]

    def __str__(self) -> str:
        return f"{self.month}: {self.sha256}"

    @property
    def begins_on(self) -> date:
        """The first day of the month."""
        return date.fromisoformat(f"{self.month}-01")
