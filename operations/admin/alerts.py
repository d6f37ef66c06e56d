"""Alerts, and the outboxes of mail and webhooks, to look at. Secrets and what mails say to whom are not shown."""

from django.contrib import admin

from billing.models import Alert, AlertSettings, OutgoingMail, WebhookDelivery, WebhookEndpoint
from billing.webhooks.queue import CLEARED, RAISED, TEST
from operations.admin.base import ReadOnlyAdmin, usd_column
from operations.admin.filters import known_values
from pages.mail import CONTEXTS


@admin.register(Alert)
class AlertAdmin(ReadOnlyAdmin):
    list_display = ["id", "organization", "kind", "subject", "raised_at", "notified_at", "cleared_at"]
    list_filter = ["kind", ("cleared_at", admin.EmptyFieldListFilter)]
    list_select_related = ["organization"]
    search_fields = ["=organization__slug"]
    ordering = ["-id"]


@admin.register(AlertSettings)
class AlertSettingsAdmin(ReadOnlyAdmin):
    list_display = ["organization", "low_balance", "budget_warning_percent", "spike_percent", "muted_kinds"]
    list_select_related = ["organization"]
    search_fields = ["=organization__slug"]
    low_balance = usd_column("low_balance_nanos", "Low balance")


@admin.register(OutgoingMail)
class OutgoingMailAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "user", "organization", "template", "attempts", "sent_at", "given_up_at", "problem"]
    list_filter = [
        known_values("template", "mail", lambda: CONTEXTS),
        ("sent_at", admin.EmptyFieldListFilter),
        ("given_up_at", admin.EmptyFieldListFilter),
    ]
    list_select_related = ["user", "organization"]
    search_fields = ["=user__email", "=organization__slug"]
    ordering = ["-created_at", "-id"]
    exclude = ["context"]


@admin.register(WebhookEndpoint)
class WebhookEndpointAdmin(ReadOnlyAdmin):
    list_display = ["id", "organization", "url", "created_at", "failing_since", "switched_off_at", "removed_at"]
    list_filter = [("failing_since", admin.EmptyFieldListFilter), ("switched_off_at", admin.EmptyFieldListFilter)]
    list_select_related = ["organization"]
    search_fields = ["=organization__slug"]
    exclude = ["sealed_secret", "sealed_previous_secret"]


@admin.register(WebhookDelivery)
class WebhookDeliveryAdmin(ReadOnlyAdmin):
    list_display = ["created_at", "endpoint", "event_type", "state", "attempt_count", "next_attempt_at", "delivered_at"]
    list_filter = ["state", known_values("event_type", "event", lambda: (RAISED, CLEARED, TEST))]
    list_select_related = ["endpoint"]
    search_fields = ["=event_id", "=endpoint__organization__slug"]
    ordering = ["-created_at", "-id"]
