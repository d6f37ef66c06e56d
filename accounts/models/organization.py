"""The paying tenant and the people who belong to it."""

from django.conf import settings
from django.db import models
from django.utils import timezone

from accounts.models.limits import Limits


class Role(models.TextChoices):
    OWNER = "owner", "Owner"
    ADMIN = "admin", "Admin"
    DEVELOPER = "developer", "Developer"
    BILLING = "billing", "Billing"
    VIEWER = "viewer", "Viewer"


class Organization(Limits):
    """Owns members, keys and one balance. `config_version` orders what Redis is told of its status and limits."""

    class Status(models.TextChoices):
        ACTIVE = "active", "Active"
        SUSPENDED = "suspended", "Suspended"
        CLOSED = "closed", "Closed"

    name = models.CharField(max_length=100)
    slug = models.SlugField(max_length=60, unique=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ACTIVE)
    status_reason = models.CharField(
        max_length=300, blank=True, db_default="", default="", help_text="Why it is suspended or closed; for operators."
    )
    credit_limit_nanos = models.PositiveBigIntegerField(
        default=0, help_text="How far below zero the balance may go (postpaid), in nano-dollars."
    )
    shows_cost_in_usage = models.BooleanField(
        default=False, help_text="Answers carry `usage.cost`, in USD. Strict clients may not know the field."
    )
    config_version = models.PositiveBigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["name"]
        permissions = [
            ("suspend_organization", "Can suspend and reopen an organization"),
            ("view_as_member", "Can look at the console as a member sees it"),
        ]

    def __str__(self) -> str:
        return self.name


class FormerSlug(models.Model):
    """A slug that an organization had before: links with it go on leading there, and no other organization gets it."""

    slug = models.SlugField(max_length=60, unique=True)
    organization = models.ForeignKey(Organization, models.CASCADE, related_name="former_slugs")
    left_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["-left_at"]

    def __str__(self) -> str:
        return self.slug


class Member(models.Model):
    organization = models.ForeignKey(Organization, models.CASCADE, related_name="members")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices)
    joined_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ["joined_at"]
        constraints = [models.UniqueConstraint(fields=["organization", "user"], name="member_once_per_organization")]

    def __str__(self) -> str:
        return f"{self.user} ({self.role}, {self.organization})"
