"""Whom documents are made out to, and whether a tax id is known to be right."""

from collections.abc import Mapping

from django.db import transaction
from django.utils import timezone

from accounts.models import BillingDetails, Organization

DETAIL_FIELDS = (
    "legal_name",
    "address_line_1",
    "address_line_2",
    "postal_code",
    "city",
    "region",
    "country",
    "tax_id",
)


class TaxIdChangedError(ValueError):
    """The tax id is not the one that was checked."""


def read_billing_details(organization: Organization) -> BillingDetails:
    """Return the details, empty ones when none were given yet."""
    found = BillingDetails.objects.filter(organization=organization).first()
    return found or BillingDetails(organization=organization)


def change_billing_details(organization: Organization, *, fields: Mapping[str, str]) -> BillingDetails:
    """Set details of DETAIL_FIELDS. Another tax id is not checked, whatever was known of the one before."""
    with transaction.atomic():
        BillingDetails.objects.get_or_create(organization=organization)
        details = BillingDetails.objects.select_for_update().get(organization=organization)
        before = details.tax_id
        for name in DETAIL_FIELDS:
            if name in fields:
                setattr(details, name, fields[name].strip())
        if details.tax_id != before:
            details.tax_id_state = BillingDetails.TaxIdState.NOT_CHECKED
            details.tax_id_checked_at = None
            details.tax_id_evidence = ""
        details.full_clean()
        details.save()
    return details


def record_tax_id_check(organization: Organization, *, tax_id: str, is_valid: bool, evidence: str) -> BillingDetails:
    """Write down that a tax id was checked, with what came of it and how.

    A check that gave no answer is not written down. Raises TaxIdChangedError when the organization has another by now.
    """
    with transaction.atomic():
        details = BillingDetails.objects.select_for_update().filter(organization=organization).first()
        if details is None or not tax_id or details.tax_id != tax_id:
            raise TaxIdChangedError(f"{organization} does not have the tax id {tax_id!r}.")
        details.tax_id_state = BillingDetails.TaxIdState.VALID if is_valid else BillingDetails.TaxIdState.INVALID
        details.tax_id_checked_at = timezone.now()
        details.tax_id_evidence = evidence
        details.full_clean()
        details.save()
    return details
