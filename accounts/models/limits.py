"""Limits that an organization or a key may carry. Empty means: no limit of its own."""

from django.core.validators import MinValueValidator
from django.db import models


class Limits(models.Model):
    """Rates are per minute, budgets in nano-dollars per UTC day, week (from Monday) and month (from the first)."""

    requests_per_minute = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    input_tokens_per_minute = models.PositiveBigIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    output_tokens_per_minute = models.PositiveBigIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    concurrent_requests = models.PositiveIntegerField(null=True, blank=True, validators=[MinValueValidator(1)])
    daily_budget_nanos = models.PositiveBigIntegerField(null=True, blank=True)
    weekly_budget_nanos = models.PositiveBigIntegerField(null=True, blank=True)
    monthly_budget_nanos = models.PositiveBigIntegerField(null=True, blank=True)
    budgets_only_notify = models.BooleanField(
        default=False, db_default=False, help_text="Requests that pass a budget are let through, and people are told."
    )

    class Meta:
        abstract = True
