"""API keys. Only the SHA-256 of a key is stored; its text is shown once, when it is made."""

import ipaddress

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone

from accounts.models.limits import Limits
from accounts.models.organization import Organization


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
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    revoked_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)
    config_version = models.PositiveBigIntegerField(default=1, editable=False)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "API key"
        verbose_name_plural = "API keys"

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…{self.last_four})"

    def clean(self) -> None:
        """A network that nobody can read would make every request of the key fail."""
        for text in self.allowed_networks:
            try:
                ipaddress.ip_network(text, strict=False)
            except ValueError as error:
                raise ValidationError({"allowed_networks": f"{text} is no network: {error}."}) from None

    @property
    def is_revoked(self) -> bool:
        return self.revoked_at is not None

    @property
    def is_expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= timezone.now()
