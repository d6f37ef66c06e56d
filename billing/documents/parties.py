"""Who issues a document and to whom, as it is written on it: a copy, because details change and documents do not."""

from django.conf import settings

from accounts.billing_details import read_billing_details
from accounts.models import BillingDetails, Organization
from billing.documents.tax import TaxRule, choose_tax_rule

Party = dict[str, str]


def describe_seller() -> Party:
    """Return the seller of the settings. Lines of the address are separated by line breaks."""
    return {
        "name": settings.SELLER_NAME,
        "address": "\n".join(part.strip() for part in settings.SELLER_ADDRESS.split("|") if part.strip()),
        "country": settings.SELLER_COUNTRY,
        "tax_id": settings.SELLER_TAX_ID,
    }


def describe_customer(organization: Organization) -> tuple[Party, TaxRule]:
    """Return an organization as documents name it now, and the tax that applies to it."""
    details = read_billing_details(organization)
    place = " ".join(part for part in (details.postal_code, details.city) if part)
    lines = [details.address_line_1, details.address_line_2, place, details.region]
    customer = {
        "name": details.legal_name or organization.name,
        "address": "\n".join(line for line in lines if line),
        "street": details.address_line_1,
        "postal_code": details.postal_code,
        "city": details.city,
        "country": details.country,
        "tax_id": details.tax_id,
        "tax_id_state": details.tax_id_state if details.tax_id else "",
        "organization": organization.slug,
    }
    is_valid = bool(details.tax_id) and details.tax_id_state == BillingDetails.TaxIdState.VALID
    return customer, choose_tax_rule(country=details.country, has_valid_tax_id=is_valid)
