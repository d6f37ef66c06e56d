"""Writes the outbox. Whoever changes a balance, limit, key or status calls this in the same transaction."""

from django.db import connection

from accounts.models import AdmissionChange, ApiKey, Organization


def record_organization_change(organization: Organization) -> AdmissionChange:
    """Note, inside the transaction that is open, that Redis must learn of this organization."""
    return _record(organization_id=organization.pk, key_id=None)


def record_key_change(key: ApiKey) -> AdmissionChange:
    """Note, inside the transaction that is open, that Redis must learn of this key."""
    return _record(organization_id=key.organization_id, key_id=key.pk)


def _record(*, organization_id: int, key_id: int | None) -> AdmissionChange:
    if not connection.in_atomic_block:
        raise RuntimeError("A change is recorded in the transaction that makes it.")
    return AdmissionChange.objects.create(organization_id=organization_id, key_id=key_id)
