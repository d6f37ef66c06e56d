"""API keys. Only the SHA-256 of a key is stored; its text is shown once, when it is made."""

import ipaddress

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from accounts.models.limits import Limits
from accounts.models.organization import Organization, Role


class ApiKey(Limits):
    """`config_version` orders what Redis and the gateways know of the key's status, limits and restrictions."""

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16, editable=False, help_text="What a person recognizes the key by.")
    last_four = models.CharField(max_length=4, editable=False)
    secret_sha256 = models.BinaryField(max_length=32, unique=True, editable=False)
    allowed_models = ArrayField(
        models.CharField(max_length=100), default=list, blank=True, help_text="Model ids; empty: all models."
    )
    allowed_networks = ArrayField(
        models.CharField(max_length=50), default=list, blank=True, help_text="CIDR ranges; empty: everywhere."
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="+",
        help_text="The member whose key it is: who sees and changes it beside those who manage all keys.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    disabled_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="Refused since then, until it is enabled again."
    )
    disabled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    is_management = models.BooleanField(
        default=False, editable=False, help_text="Manages the organization over the API, and calls no model."
    )
    role = models.CharField(
        max_length=10,
        choices=Role.choices,
        blank=True,
        db_default="",
        default="",
        editable=False,
        help_text="What a management key acts as. Empty: it only reads what every member may.",
    )
    config_version = models.PositiveBigIntegerField(default=1, editable=False)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"
        verbose_name_plural = "API keys"
        indexes = [
            # By its beginning, or as much of it as somebody has; and by its end.
            models.Index(fields=["prefix"], opclasses=["varchar_pattern_ops"], name="api_key_by_prefix"),
            models.Index(fields=["last_four"], name="api_key_by_last_four"),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…{self.last_four})"

    def clean(self) -> None:
        """A network that nobody can read would make every request of the key fail."""
        for text in self.allowed_networks:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise ValidationError({"allowed_networks": f"{text} is not a network: {error}."}) from None

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at is not None

    @property
    def is_disabled(self) -> bool:
        return self.disabled_at is not None

    @property
    def status(self) -> str:
        """What Redis is told: `active`, `disabled` or `revoked`. Expiry is judged by the clock of whoever asks."""
        return "revoked" if self.is_revoked else "disabled" if self.is_disabled else "active"

    @property
    def acting_role(self) -> Role:
        """What a management key acts as. Those made before there were roles read, as they did."""
        return Role(self.role or Role.VIEWER)

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()


class TemporarySecret(models.Model):
    """A second secret of a key that ends by itself: the one before a rotation, or one that a person's page asks with.

    Everything of the key applies to it: limits, budgets, restrictions, status. Only its SHA-256 is stored.
    """

    key = models.ForeignKey(ApiKey, models.CASCADE, related_name="temporary_secrets")
    secret_sha256 = models.BinaryField(max_length=32, unique=True, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.CASCADE,
        null=True,
        editable=False,
        related_name="+",
        help_text="Whose page has it; none: it was the key's own before a rotation.",
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    ends_at = models.DateTimeField()

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"a second secret of {self.key} until {self.ends_at:%Y-%m-%d %H:%M}"

    @property
    def is_over(self) -> bool:
        return self.ends_at <= timezone.now()
