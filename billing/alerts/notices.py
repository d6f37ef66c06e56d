"""Tells people and webhooks of alerts: queues mails and deliveries in the transaction that marks the alert as told.

Hysteresis in time. What was told within QUIET is not told again, however often it was cleared and raised meanwhile; if
it is still open afterwards, it is told then. All that is new of an organization goes into one mail to each reader, and
after MAX_NOTICES_PER_HOUR the rest waits and comes as one.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, Exists, OuterRef
from django.utils import timezone

from billing.alerts.recipients import Readers, read_readers
from billing.mail_outbox import MailToQueue, queue_mails
from billing.models import Alert
from billing.webhooks.queue import queue_alert_events

QUIET = timedelta(hours=6)
MAX_NOTICES_PER_HOUR = 6  # Of an organization.
MAX_ALERTS_PER_ROUND = 1_000
MAIL_TEMPLATE = "alerts"


def queue_notices() -> int:
    """Tell of every alert that is due, and of those that are over; return how many alerts that were."""
    return _tell_of_raised() + _tell_of_cleared()


def _tell_of_raised() -> int:
    now = timezone.now()
    earlier = Alert.objects.filter(
        organization=OuterRef("organization"),
        kind=OuterRef("kind"),
        subject=OuterRef("subject"),
        notified_at__gt=now - QUIET,
    )
    with transaction.atomic():
        due = Alert.objects.filter(~Exists(earlier), notified_at=None, cleared_at=None)
        due = due.exclude(organization__in=_crowded())
        rows = due.select_related("key", "organization").select_for_update(skip_locked=True, of=("self",))
        alerts = list(rows.order_by("id")[:MAX_ALERTS_PER_ROUND])
        if not alerts:
            return 0
        by_organization: dict[int, list[Alert]] = defaultdict(list)
        for alert in alerts:
            by_organization[alert.organization_id].append(alert)
        readers = read_readers(by_organization)
        queue_mails(
            mail
            for organization_id, group in by_organization.items()
            for mail in _mails(organization_id, group, readers[organization_id])
        )
        queue_alert_events([alert for alert in alerts if alert.kind not in readers[alert.organization_id].muted_kinds])
        Alert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(notified_at=now)
    return len(alerts)


def _tell_of_cleared() -> int:
    """Tell webhooks, which may have opened something, that it is over. People see it in the console."""
    with transaction.atomic():
        over = Alert.objects.filter(notified_at__isnull=False, cleared_at__isnull=False, clearing_told=False)
        rows = over.select_related("key", "organization").select_for_update(skip_locked=True, of=("self",))
        alerts = list(rows.order_by("id")[:MAX_ALERTS_PER_ROUND])
        if alerts:
            readers = read_readers({alert.organization_id for alert in alerts})
            queue_alert_events([each for each in alerts if each.kind not in readers[each.organization_id].muted_kinds])
            Alert.objects.filter(pk__in=[alert.pk for alert in alerts]).update(clearing_told=True)
    return len(alerts)


def _crowded() -> list[int]:
    """Return the organizations that were told of so much within the hour that the rest can wait for it."""
    told = Alert.objects.filter(notified_at__gt=timezone.now() - timedelta(hours=1)).order_by()
    rounds = told.values("organization_id").annotate(rounds=Count("notified_at", distinct=True))
    return list(rounds.filter(rounds__gte=MAX_NOTICES_PER_HOUR).values_list("organization_id", flat=True))


def _mails(organization_id: int, alerts: list[Alert], readers: Readers) -> Iterable[MailToQueue]:
    """Yield one mail for each reader, with all that concerns them."""
    by_reader: dict[int, list[int]] = defaultdict(list)
    for alert in alerts:
        for user_id in readers.of(alert):
            by_reader[user_id].append(alert.pk)
    for user_id, alert_ids in by_reader.items():
        context: dict[str, Any] = {"alerts": alert_ids}
        once_key = f"alerts:{user_id}:{alert_ids[0]}-{alert_ids[-1]}"
        yield MailToQueue(user_id, MAIL_TEMPLATE, once_key, organization_id, context)
