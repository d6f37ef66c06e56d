"""Whom documents are made out to."""

from django.core.validators import RegexValidator
from django.db import models
from django.db.models import Q

from accounts.models.organization import Organization

COUNTRY = RegexValidator(r"^[A-Z]{2}$", "Two capital letters, such as DE.")


class BillingDetails(models.Model):
    """Name, address and tax id of an organization, as the next documents will bear them.

    A tax id that nobody could check is `not_checked`, never `invalid`: a service that was down proves nothing.
    """

    class TaxIdState(models.TextChoices):
        NOT_CHECKED = "not_checked", "Not checked"
        VALID = "valid", "Valid"
        INVALID = "invalid", "Invalid"

    organization = models.OneToOneField(Organization, models.CASCADE, primary_key=True, related_name="billing_details")
    legal_name = models.CharField(max_length=200, blank=True)
    address_line_1 = models.CharField(max_length=150, blank=True)
    address_line_2 = models.CharField(max_length=150, blank=True)
    postal_code = models.CharField(max_length=20, blank=True)
    city = models.CharField(max_length=100, blank=True)
    region = models.CharField(max_length=100, blank=True)
    country = models.CharField(max_length=2, blank=True, validators=[COUNTRY])
    tax_id = models.CharField("tax id", max_length=40, blank=True)
    tax_id_state = models.CharField(max_length=12, choices=TaxIdState.choices, default=TaxIdState.NOT_CHECKED)
    tax_id_checked_at = models.DateTimeField(null=True, blank=True)
    tax_id_evidence = models.CharField(max_length=300, blank=True, help_text="How it was checked, and by whom.")

    class Meta:
        verbose_name_plural = "billing details"
        constraints = [
            models.CheckConstraint(
                condition=Q(tax_id_state="not_checked", tax_id_checked_at=None)
                | (~Q(tax_id_state="not_checked") & Q(tax_id_checked_at__isnull=False) & ~Q(tax_id_evidence="")),
                name="tax_id_check_has_evidence",
            ),
        ]

    def __str__(self) -> str:
        return self.legal_name or str(self.organization)
