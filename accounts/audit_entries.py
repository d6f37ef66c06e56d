"""Reads the audit, and adds acts that change no row of their own."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.db.models import Q

from accounts.models import AuditEntry

MAX_ENTRIES = 200  # In one page of the audit.


def record(
    action: str,
    *,
    subject_table: str,
    subject_id: object,
    organization_id: int | None = None,
    details: Mapping[str, Any] | None = None,
) -> AuditEntry:
    """Write down an act that changes no row of its own. Postgres fills in who, when and from where."""
    return AuditEntry.objects.create(
        action=action,
        subject_table=subject_table,
        subject_id=str(subject_id),
        organization_id=organization_id,
        after=dict(details) if details else None,
    )


def entries_of_organization(
    organization_id: int, *, tables: Sequence[str], before_id: int | None = None, limit: int = 50
) -> list[AuditEntry]:
    """Return the organization's part of the audit, newest first; `before_id` is the last entry of the page before."""
    wanted = Q(organization_id=organization_id, subject_table__in=tables)
    if before_id is not None:
        wanted &= Q(pk__lt=before_id)
    return list(AuditEntry.objects.filter(wanted).order_by("-id")[: min(limit, MAX_ENTRIES)])
