"""Tells admission that budgets have changed. In the transaction of the change, under the lock of the organization."""

from django.db.models import F

from accounts.models import AdmissionChange, ApiKey, Organization
from accounts.outbox import record_key_change, record_organization_change
from billing.models import OrganizationBalance


def lock_organization(organization_id: int, *, with_balance: bool = False) -> Organization:
    """Lock an organization, and before it, as postings do, its balance: then settlement counts all or nothing."""
    if with_balance:
        list(OrganizationBalance.objects.select_for_update().filter(pk=organization_id))
    return Organization.objects.select_for_update().get(pk=organization_id)


def note_change(organization: Organization) -> None:
    """Let Redis learn that the organization has changed: all that it knows of spenders is read again, one by one."""
    Organization.objects.filter(pk=organization.pk).update(config_version=F("config_version") + 1)
    record_organization_change(organization)


def note_key_change(key: ApiKey) -> None:
    ApiKey.objects.filter(pk=key.pk).update(config_version=F("config_version") + 1)
    record_key_change(key)


def note_owners_of_keys(organization: Organization) -> None:
    """Let Redis learn whose the organization's living keys are."""
    keys = organization.keys.filter(revoked_at=None).values_list("pk", flat=True)
    AdmissionChange.objects.bulk_create(AdmissionChange(organization=organization, key_id=key_id) for key_id in keys)
