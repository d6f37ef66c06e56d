"""Finds a document by its number, within its organization."""

from accounts.models import Organization
from billing.models import Document

MAX_DIGITS = 18


def find_document(organization: Organization, label: str) -> Document | None:
    """Return the organization's document with this number, such as INV-000007; None for another's, too."""
    prefix, _, digits = label.partition("-")
    kinds = {text: kind for kind, text in Document.PREFIXES.items()}
    if prefix not in kinds or not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_DIGITS):
        return None
    found = (
        organization.documents.filter(kind=kinds[prefix], number=int(digits))
        .select_related("closed_month", "corrects", "payment")
        .first()
    )
    return found if found is not None and found.label == label else None
