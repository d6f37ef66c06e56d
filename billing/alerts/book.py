"""The book of alerts: raises and clears them. Whoever finds a condition calls this module; nobody else writes the rows.

Another part of billing calls raise_alert() and clear_alert() in its own transaction. The people and webhooks hear of it
from billing.alerts.notices, after the commit.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from accounts.models import Organization
from billing.alerts.judgement import Finding
from billing.bulk_rows import insert_rows
from billing.models import Alert

EVALUATION_LOCK = 7_303_021  # Two evaluations at once would each clear what the other has just raised.
MAX_SUBJECT_CHARS = 100
KEPT = timedelta(days=400)
IDENTITY = ("pk", "organization_id", "kind", "subject")
COLUMNS = {
    "organization_id": "bigint",
    "kind": "text",
    "subject": "text",
    "key_id": "bigint",
    "details": "jsonb",
    "raised_at": "timestamptz",
}


def raise_alert(
    organization: Organization,
    kind: Alert.Kind,
    *,
    subject: str = "",
    details: Mapping[str, Any] | None = None,
    key_id: int | None = None,
) -> bool:
    """Open an alert unless it is open already; say whether it is new. To be called in the transaction of its reason.

    `details` are figures and plain texts that docs/alerts.md lists for the kind, amounts in nano-dollars under a name
    that ends in `_nanos`. However often it is raised while it is open, people hear of it once.
    """
    finding = Finding(organization.pk, kind, subject[:MAX_SUBJECT_CHARS], key_id, details=details or {})
    return bool(_insert([finding]))


def clear_alert(organization: Organization, kind: Alert.Kind, *, subject: str = "") -> bool:
    """Close an alert, and say whether it was open."""
    alerts = Alert.objects.filter(organization=organization, kind=kind, subject=subject, cleared_at=None)
    return bool(alerts.update(cleared_at=timezone.now()))


def forget_old_alerts() -> int:
    """Delete alerts that have been over for long, and return how many that were."""
    return Alert.objects.filter(cleared_at__lt=timezone.now() - KEPT).delete()[0]


def apply_findings(kinds: Collection[str], findings: Iterable[Finding]) -> tuple[int, int]:
    """Raise what was found, clear what is open of these kinds and was not found; return how many of each.

    Does nothing while another evaluation is at it.
    """
    found = {(finding.organization_id, finding.kind, finding.subject): finding for finding in findings}
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [EVALUATION_LOCK])
            [is_mine] = cursor.fetchone()
        if not is_mine:
            return 0, 0
        alerts = Alert.objects.filter(kind__in=kinds, cleared_at=None).order_by()
        rows = {(organization, kind, subject): pk for pk, organization, kind, subject in alerts.values_list(*IDENTITY)}
        over = [pk for identity, pk in rows.items() if identity not in found]
        new = [finding for identity, finding in found.items() if finding.is_raised and identity not in rows]
        raised = _insert(new)
        cleared = Alert.objects.filter(pk__in=over, cleared_at=None).update(cleared_at=timezone.now()) if over else 0
    return raised, cleared


def _insert(findings: Collection[Finding]) -> int:
    """Insert alerts, leaving out those that are open; return how many there were."""
    now = timezone.now()
    rows = [
        (each.organization_id, each.kind, each.subject, each.key_id, json.dumps(dict(each.details)), now)
        for each in findings
    ]
    return len(insert_rows("billing_alert", COLUMNS, rows, tail="ON CONFLICT DO NOTHING RETURNING id"))
