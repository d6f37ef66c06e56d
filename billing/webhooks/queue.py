"""Queues events for the endpoints of organizations, in the transaction of what they tell of."""

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from django.utils import timezone

from billing.models import Alert, WebhookDelivery, WebhookEndpoint
from billing.money import format_usd

RAISED, CLEARED, TEST = "alert.raised", "alert.cleared", "webhook.test"
MAX_TESTS_PER_HOUR = 20  # Of an endpoint.
# Kinds that tell of an endpoint itself do not go to that endpoint.
OF_ENDPOINTS = (Alert.Kind.WEBHOOK_FAILING, Alert.Kind.WEBHOOK_SWITCHED_OFF)


class TooManyTestsError(Exception):
    """The endpoint had MAX_TESTS_PER_HOUR tests within the hour."""


def queue_alert_events(alerts: Sequence[Alert]) -> None:
    """Queue an event of each alert for each endpoint that wants its kind. Queued before, it is not queued again.

    For an endpoint that is switched off it is stored as missed.
    """
    if not alerts:
        return
    endpoints: dict[int, list[WebhookEndpoint]] = {}
    ids = {alert.organization_id for alert in alerts}
    for endpoint in WebhookEndpoint.objects.filter(organization__in=ids, removed_at=None):
        endpoints.setdefault(endpoint.organization_id, []).append(endpoint)
    deliveries = [
        _delivery(endpoint, alert_event_id(alert), _type_of(alert), alert_data(alert))
        for alert in alerts
        for endpoint in endpoints.get(alert.organization_id, ())
        if _wants(endpoint, alert)
    ]
    WebhookDelivery.objects.bulk_create(deliveries, ignore_conflicts=True)


def queue_test(endpoint: WebhookEndpoint) -> WebhookDelivery:
    """Queue a test event and return its delivery. Raises TooManyTestsError."""
    since = timezone.now() - timedelta(hours=1)
    recent = WebhookDelivery.objects.filter(endpoint=endpoint, event_type=TEST, created_at__gt=since)
    if recent.count() >= MAX_TESTS_PER_HOUR:
        raise TooManyTestsError
    data = {"organization": endpoint.organization.slug, "message": "This is a test."}
    delivery = _delivery(endpoint, f"evt_test_{uuid.uuid4().hex}", TEST, data)
    delivery.save()
    return delivery


def alert_event_id(alert: Alert) -> str:
    """Return the id of the event: the same however often it is queued or sent."""
    return f"evt_alert_{alert.pk}_{'raised' if alert.is_open else 'cleared'}"


def alert_data(alert: Alert) -> dict[str, Any]:
    """Return what an event says of an alert. Amounts are decimal texts in US dollars; times are ISO 8601, in UTC."""
    key = alert.key
    return {
        "alert_id": f"alert_{alert.pk}",
        "kind": alert.kind,
        "organization": alert.organization.slug,
        "subject": alert.subject,
        "key": {"id": key.pk, "name": key.name, "prefix": key.prefix, "last_four": key.last_four} if key else None,
        "raised_at": _iso(alert.raised_at),
        "cleared_at": _iso(alert.cleared_at) if alert.cleared_at else None,
        "details": dict(_in_usd(alert.details)),
    }


def _wants(endpoint: WebhookEndpoint, alert: Alert) -> bool:
    if alert.kind in OF_ENDPOINTS and alert.subject == f"endpoint:{endpoint.pk}":
        return False
    return not endpoint.kinds or alert.kind in endpoint.kinds


def _type_of(alert: Alert) -> str:
    return RAISED if alert.is_open else CLEARED


def _delivery(endpoint: WebhookEndpoint, event_id: str, event_type: str, data: Mapping[str, Any]) -> WebhookDelivery:
    body = {"type": event_type, "timestamp": _iso(timezone.now()), "data": data}
    return WebhookDelivery(
        endpoint=endpoint,
        event_id=event_id,
        event_type=event_type,
        body=json.dumps(body, separators=(",", ":")),
        state=WebhookDelivery.State.WAITING if endpoint.is_on else WebhookDelivery.State.FAILED,
    )


def _in_usd(details: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in details.items():
        if name.endswith("_nanos") and isinstance(value, int):
            yield name.removesuffix("_nanos") + "_usd", format_usd(value)
        else:
            yield name, value


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
