"""Budgets of members and end users, overrides of any budget, and what members and end users have spent by day."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Organization
from billing.usage_event import MAX_END_USER_CHARS


class SpenderBudget(models.Model):
    """What one member or end user may spend; with an empty `spender`, what each may who has no budget of their own.

    `spender` is the user's id of a member, and the digest of an end user, whose text is `end_user`. A budget that only
    notifies refuses nothing. Amounts in nano-dollars; None: no budget for that period.
    """

    class Scope(models.TextChoices):
        MEMBER = "member", "Member"
        END_USER = "end_user", "End user"

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="spender_budgets")
    scope = models.CharField(max_length=10, choices=Scope.choices)
    spender = models.CharField(max_length=32, blank=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, null=True, blank=True, related_name="+")
    end_user = models.CharField(max_length=MAX_END_USER_CHARS, blank=True)
    daily_budget_nanos = models.PositiveBigIntegerField(null=True, blank=True)
    weekly_budget_nanos = models.PositiveBigIntegerField(null=True, blank=True)
    monthly_budget_nanos = models.PositiveBigIntegerField(null=True, blank=True)
    budgets_only_notify = models.BooleanField(default=False)
    changed_by = models.CharField(max_length=254, help_text="The actor.")
    changed_at = models.DateTimeField(default=timezone.now)

    class Meta:
        ordering = ["organization", "scope", "spender"]
        constraints = [
            models.UniqueConstraint(fields=["organization", "scope", "spender"], name="spender_budget_once"),
            models.CheckConstraint(
                condition=Q(spender="", user=None, end_user="")
                | (Q(scope="member", user__isnull=False, end_user="") & ~Q(spender=""))
                | (Q(scope="end_user", user=None) & ~Q(spender="") & ~Q(end_user="")),
                name="spender_budget_names_whom_it_is_of",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.get_scope_display()} {self.end_user or self.spender or '(default)'}"


class BudgetOverride(models.Model):
    """Other budgets for a while: who made it, why, and until when. It ends by itself, or when somebody ends it.

    `holder` is a key's id, or the spender as in SpenderBudget; empty for the organization, and for a default. A period
    without an amount keeps its budget. Amounts in nano-dollars.
    """

    class Scope(models.TextChoices):
        ORGANIZATION = "organization", "Organization"
        KEY = "key", "Key"
        MEMBER = "member", "Member"
        END_USER = "end_user", "End user"

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="budget_overrides")
    scope = models.CharField(max_length=12, choices=Scope.choices)
    holder = models.CharField(max_length=32, blank=True)
    daily_budget_nanos = models.PositiveBigIntegerField(null=True, blank=True)
    weekly_budget_nanos = models.PositiveBigIntegerField(null=True, blank=True)
    monthly_budget_nanos = models.PositiveBigIntegerField(null=True, blank=True)
    until = models.DateTimeField()
    reason = models.CharField(max_length=200)
    made_by = models.CharField(max_length=254, help_text="The actor.")
    made_at = models.DateTimeField(default=timezone.now, editable=False)
    ended_by = models.CharField(max_length=254, blank=True, help_text="The actor, where it did not end by its time.")
    ended_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "scope", "holder"], condition=Q(ended_at=None), name="budget_override_once"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.scope} {self.holder} until {self.until:%Y-%m-%d %H:%M}"


class SpenderDay(models.Model):
    """What a member or an end user spent on requests admitted on one UTC day, where the organization has such budgets.

    Kept only for as long as a budget can reach back. `end_user` is the text that the digest was made of.
    """

    organization_id = models.BigIntegerField()
    scope = models.CharField(max_length=10)
    spender = models.CharField(max_length=32)
    admitted_day = models.IntegerField()
    cost_nanos = models.BigIntegerField(default=0)
    end_user = models.CharField(max_length=MAX_END_USER_CHARS, blank=True)

    class Meta:
        ordering = ["-admitted_day"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization_id", "scope", "spender", "admitted_day"], name="spender_day_once"
            ),
        ]
        indexes = [models.Index(fields=["admitted_day"], name="spender_day_by_day")]

    def __str__(self) -> str:
        return f"{self.organization_id}/{self.scope} {self.spender} {self.admitted_day}"
