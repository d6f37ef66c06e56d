"""What an organization chose to be told of, and when."""

from collections.abc import Mapping
from typing import Any

from django.db.models import QuerySet

from accounts.access import Permission, may
from accounts.models import Organization
from billing.models import Alert, AlertSettings

MAX_ALERTS_LISTED = 100
# What not every member may see. The rest is on pages that all of them may open.
NEEDED_TO_SEE = {
    Alert.Kind.PAYMENT_FAILED: Permission.SEE_BILLING,
    Alert.Kind.AUTOMATIC_TOP_UP_FAILED: Permission.SEE_BILLING,
    Alert.Kind.AUTOMATIC_TOP_UP_SUSPENDED: Permission.SEE_BILLING,
    Alert.Kind.WEBHOOK_FAILING: Permission.MANAGE_ALERTS,
    Alert.Kind.WEBHOOK_SWITCHED_OFF: Permission.MANAGE_ALERTS,
}


def read_choices(organization: Organization) -> AlertSettings:
    """Return what the organization chose, or the defaults."""
    return AlertSettings.objects.filter(pk=organization.pk).first() or AlertSettings(organization=organization)


def change_choices(organization: Organization, *, fields: Mapping[str, Any]) -> AlertSettings:
    """Set what the organization chose. It takes effect at the next look, within a minute."""
    choices, _ = AlertSettings.objects.update_or_create(organization=organization, defaults=dict(fields))
    return choices


def open_alerts(organization: Organization, *, role: str, limit: int = MAX_ALERTS_LISTED) -> list[Alert]:
    """Return the open alerts that the role may see, newest first, read for pages.alert_text."""
    return list(seen_by(role, organization).filter(cleared_at=None)[: min(limit, MAX_ALERTS_LISTED)])


def past_alerts(organization: Organization, *, role: str, limit: int) -> list[Alert]:
    """Return the alerts that are over and that the role may see, newest first."""
    return list(seen_by(role, organization).exclude(cleared_at=None)[: min(limit, MAX_ALERTS_LISTED)])


def seen_by(role: str, organization: Organization) -> QuerySet[Alert]:
    """Return the alerts that the role may see, newest first."""
    hidden = [kind for kind, permission in NEEDED_TO_SEE.items() if not may(role, permission)]
    alerts = Alert.objects.filter(organization=organization).exclude(kind__in=hidden)
    return alerts.select_related("key", "organization").order_by("-id")
