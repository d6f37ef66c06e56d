"""Customers' webhooks: endpoints, and deliveries, which are stored before they are sent and stay afterwards."""

import uuid

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Organization


class WebhookEndpoint(models.Model):
    """Where an organization wants events sent. Secrets are encrypted (billing/webhooks/secrets.py) and shown once.

    `failing_since` is the first failed attempt since the last success. Removed endpoints keep their deliveries.
    """

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="webhook_endpoints")
    url = models.CharField(max_length=500)
    description = models.CharField(max_length=100, blank=True)
    kinds = ArrayField(
        models.CharField(max_length=30), default=list, blank=True, help_text="Kinds of alerts; empty: all of them."
    )
    sealed_secret = models.TextField(editable=False)
    sealed_previous_secret = models.TextField(blank=True, editable=False)
    previous_secret_ends_at = models.DateTimeField(null=True, blank=True, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, editable=False, related_name="+"
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    failing_since = models.DateTimeField(null=True, blank=True, editable=False)
    switched_off_at = models.DateTimeField(null=True, blank=True, editable=False)
    switched_off_reason = models.CharField(max_length=200, blank=True, editable=False)
    removed_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["id"]
        indexes = [models.Index(fields=["organization"], condition=Q(removed_at=None), name="webhook_endpoint_kept")]

    def __str__(self) -> str:
        return self.url

    @property
    def is_on(self) -> bool:
        return self.switched_off_at is None and self.removed_at is None


class WebhookDelivery(models.Model):
    """One event for one endpoint. `event_id` is the `webhook-id` of every attempt, also of replays.

    `body` is sent as it stands. `attempts` lists each with its time, status, problem and milliseconds.
    """

    class State(models.TextChoices):
        WAITING = "waiting", "Waiting"
        DELIVERED = "delivered", "Delivered"
        FAILED = "failed", "Failed"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    endpoint = models.ForeignKey(WebhookEndpoint, models.CASCADE, related_name="deliveries")
    event_id = models.CharField(max_length=60)
    event_type = models.CharField(max_length=60)
    body = models.TextField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.WAITING)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    attempt_count = models.PositiveSmallIntegerField(default=0, help_text="Since it was queued, or replayed.")
    claimed_until = models.DateTimeField(null=True, blank=True, editable=False)
    attempts = models.JSONField(default=list)
    answer = models.CharField(max_length=500, blank=True, help_text="How the latest answer began.")
    delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at", "-id"]
        verbose_name_plural = "webhook deliveries"
        constraints = [models.UniqueConstraint(fields=["endpoint", "event_id"], name="webhook_delivery_once")]
        indexes = [
            models.Index(fields=["next_attempt_at"], condition=Q(state="waiting"), name="webhook_delivery_due"),
            models.Index(fields=["endpoint", "-created_at"], name="webhook_delivery_by_endpoint"),
            models.Index(fields=["-created_at", "-id"], name="webhook_delivery_by_time"),
            models.Index(fields=["event_id"], name="webhook_delivery_by_event"),
            models.Index(
                fields=["endpoint"], condition=Q(claimed_until__isnull=False), name="webhook_delivery_claimed"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event_type} {self.event_id}: {self.state}"
