"""Deliveries: who takes one to send it, what comes of it, when it is tried again, and when an endpoint is given up.

At least once, under one id. Whoever claims a delivery has it for LEASE_SECONDS; a crash in between leaves it to the
next. The sending itself is at the edge: operations/webhook_sender.py.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from billing.alerts.book import clear_alert, raise_alert
from billing.models import Alert, WebhookDelivery, WebhookEndpoint
from billing.webhooks.endpoints import alert_subject, host_of, switch_off

CLAIM_LOCK = 7_303_022
LEASE_SECONDS = 120
MAX_AT_ONCE_PER_ORGANIZATION = 2
# Before the second attempt, the third and so on: three days in all. Each is spread by up to a tenth.
WAITS_SECONDS = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
SPREAD = 0.1
# An endpoint that has failed for so long without one success is switched off; one that says 410 at once.
SWITCH_OFF_AFTER = timedelta(days=5)
GONE = 410
MAX_ATTEMPTS_KEPT = 40  # Of a delivery, over all replays.
MAX_ANSWER_CHARS = 500
MAX_PROBLEM_CHARS = 200
MAX_REPLAYED = 1_000
KEPT = timedelta(days=30)
LATE_AFTER = timedelta(minutes=15)

State = WebhookDelivery.State


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt. Without a `problem` it was delivered; `status` is None where none came."""

    status: int | None
    problem: str
    text: str
    milliseconds: int


def list_deliveries(
    endpoint: WebhookEndpoint, *, before: tuple[datetime, UUID] | None = None
) -> QuerySet[WebhookDelivery]:
    """Return the deliveries to an endpoint without their bodies, newest first, older than the named one: (when, id)."""
    found = WebhookDelivery.objects.filter(endpoint=endpoint).defer("body").order_by("-created_at", "-pk")
    if before is None:
        return found
    at, delivery_id = before
    return found.filter(Q(created_at__lt=at) | Q(created_at=at, pk__lt=delivery_id))


def claim_deliveries(*, limit: int) -> list[WebhookDelivery]:
    """Take deliveries that are due: one of an endpoint at a time, a few of an organization. So none holds up others."""
    now = timezone.now()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [CLAIM_LOCK])
        cursor.execute(
            """
            WITH due AS (
                SELECT delivery.id, delivery.next_attempt_at, endpoint.organization_id,
                    row_number() OVER (PARTITION BY endpoint_id ORDER BY next_attempt_at, delivery.created_at) AS place
                FROM billing_webhookdelivery delivery JOIN billing_webhookendpoint endpoint
                    ON endpoint.id = delivery.endpoint_id
                WHERE state = 'waiting' AND next_attempt_at <= %(now)s
                    AND endpoint.switched_off_at IS NULL AND endpoint.removed_at IS NULL
                    AND NOT EXISTS (SELECT 1 FROM billing_webhookdelivery other
                        WHERE other.endpoint_id = delivery.endpoint_id AND other.claimed_until > %(now)s)
            ), busy AS (
                SELECT organization_id, count(*) AS number FROM billing_webhookdelivery JOIN billing_webhookendpoint
                    ON billing_webhookendpoint.id = endpoint_id WHERE claimed_until > %(now)s GROUP BY 1
            ), first AS (
                SELECT due.id, due.next_attempt_at, coalesce(busy.number, 0) + row_number() OVER
                    (PARTITION BY due.organization_id ORDER BY due.next_attempt_at) AS place
                FROM due LEFT JOIN busy USING (organization_id) WHERE due.place = 1
            )
            UPDATE billing_webhookdelivery SET claimed_until = %(until)s, attempt_count = attempt_count + 1
            WHERE id IN (SELECT id FROM first WHERE place <= %(each)s ORDER BY next_attempt_at LIMIT %(limit)s)
            RETURNING id
            """,
            {
                "now": now,
                "until": now + timedelta(seconds=LEASE_SECONDS),
                "each": MAX_AT_ONCE_PER_ORGANIZATION,
                "limit": limit,
            },
        )
        ids = [row[0] for row in cursor.fetchall()]
    found = WebhookDelivery.objects.filter(pk__in=ids).select_related("endpoint__organization")
    return sorted(found, key=lambda delivery: (delivery.next_attempt_at, delivery.created_at))


def note_answer(delivery: WebhookDelivery, answer: Answer) -> None:
    """Write down an attempt. After a failure it is tried again, or given up; an endpoint may be switched off."""
    now = timezone.now()
    endpoint = delivery.endpoint
    attempt = {
        "at": now.isoformat(timespec="seconds"),
        "status": answer.status,
        "problem": _problem_text(answer),
        "ms": answer.milliseconds,
    }
    values: dict[str, Any] = {
        "attempts": [*delivery.attempts, attempt][-MAX_ATTEMPTS_KEPT:],
        "answer": answer.text.replace("\x00", "")[:MAX_ANSWER_CHARS],
        "claimed_until": None,
    }
    if not answer.problem:
        values |= {"state": State.DELIVERED, "delivered_at": now}
    elif delivery.attempt_count > len(WAITS_SECONDS):
        values |= {"state": State.FAILED}
    else:
        values |= {"next_attempt_at": now + timedelta(seconds=wait_seconds(delivery.attempt_count))}
    with transaction.atomic():
        # Whoever comes back after the lease may find it delivered by another, replayed, or the endpoint gone.
        mine = WebhookDelivery.objects.filter(pk=delivery.pk, claimed_until=delivery.claimed_until)
        if not mine.update(**values):
            return
        if answer.problem:
            _note_failing(endpoint, answer, now)
        else:
            _note_working(endpoint)


def wait_seconds(attempts: int) -> float:
    """Return how long to wait after so many failed attempts."""
    return WAITS_SECONDS[attempts - 1] * (1 + random.uniform(0, SPREAD))


def replay(delivery: WebhookDelivery) -> bool:
    """Send it again now, under the same id, with all its attempts before it; say whether it was not waiting already."""
    return bool(_replay([delivery.pk]))


def replay_missed(endpoint: WebhookEndpoint) -> int:
    """Send again what failed or was missed, oldest first; return how many that is, at most MAX_REPLAYED."""
    failed = WebhookDelivery.objects.filter(endpoint=endpoint, state=State.FAILED).order_by("created_at")
    return _replay(list(failed.values_list("pk", flat=True)[:MAX_REPLAYED]))


def count_late_deliveries() -> int:
    """Return how many deliveries are due since LATE_AFTER or longer, at endpoints that are on: nobody sends them."""
    due = WebhookDelivery.objects.filter(state=State.WAITING, next_attempt_at__lt=timezone.now() - LATE_AFTER)
    return due.filter(endpoint__switched_off_at=None, endpoint__removed_at=None).count()


def forget_old_deliveries() -> int:
    """Delete deliveries older than KEPT, and endpoints that were removed so long ago; return how many deliveries."""
    before = timezone.now() - KEPT
    deleted = WebhookDelivery.objects.filter(created_at__lt=before).delete()[0]
    WebhookEndpoint.objects.filter(removed_at__lt=before).delete()
    return deleted


def _problem_text(answer: Answer) -> str:
    """Return the problem as it can be kept: it may repeat what the other side said, which may be any bytes."""
    return "".join(char if char.isprintable() else " " for char in answer.problem)[:MAX_PROBLEM_CHARS]


def _replay(ids: Sequence[Any]) -> int:
    rows = WebhookDelivery.objects.filter(
        pk__in=ids, endpoint__switched_off_at=None, endpoint__removed_at=None
    ).exclude(state=State.WAITING)
    return rows.update(state=State.WAITING, next_attempt_at=timezone.now(), attempt_count=0, claimed_until=None)


def _note_working(endpoint: WebhookEndpoint) -> None:
    if WebhookEndpoint.objects.filter(pk=endpoint.pk).exclude(failing_since=None).update(failing_since=None):
        clear_alert(endpoint.organization, Alert.Kind.WEBHOOK_FAILING, subject=alert_subject(endpoint))


def _note_failing(endpoint: WebhookEndpoint, answer: Answer, now: datetime) -> None:
    WebhookEndpoint.objects.filter(pk=endpoint.pk, failing_since=None).update(failing_since=now)
    subject = alert_subject(endpoint)
    details = {"host": host_of(endpoint), "status": answer.status, "problem": _problem_text(answer)}
    since = WebhookEndpoint.objects.values_list("failing_since", flat=True).get(pk=endpoint.pk) or now
    is_gone = answer.status == GONE
    if is_gone or now - since >= SWITCH_OFF_AFTER:
        reason = "It answered 410 Gone." if is_gone else f"It has failed since {since:%Y-%m-%d %H:%M} UTC."
        if switch_off(endpoint, reason=reason, at=now):
            clear_alert(endpoint.organization, Alert.Kind.WEBHOOK_FAILING, subject=subject)
            details["since"] = since.isoformat(timespec="seconds")
            raise_alert(endpoint.organization, Alert.Kind.WEBHOOK_SWITCHED_OFF, subject=subject, details=details)
        return
    raise_alert(endpoint.organization, Alert.Kind.WEBHOOK_FAILING, subject=subject, details=details)
