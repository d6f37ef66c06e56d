"""What is due from time to time: the expiry of credit lots, and the partitions of the months to come."""

from datetime import UTC, datetime

from billing.admission.feed import publish_organizations
from billing.admission.worker import read_figures
from billing.credit_lots import expire_lots, organizations_with_expired_lots
from billing.models import OrganizationBalance
from billing.partitions import create_partitions


def keep_house() -> None:
    """Do all that is due; twice or late changes only when it is done. Raises AdmissionUnavailableError."""
    create_partitions(now=datetime.now(UTC))
    expire_due_lots()


def expire_due_lots() -> int:
    """Post the expiry of lots past their time, as far as no running request may need them. Returns nano-dollars."""
    expired = 0
    for organization in organizations_with_expired_lots():
        publish_organizations([organization.pk])
        figures = read_figures(organization.pk)
        if figures is None:
            continue  # Redis is being rebuilt; the next round comes soon.
        # Read after the figures: what was settled in between counts twice, which keeps too much rather than too little.
        posted = OrganizationBalance.objects.get(pk=organization.pk).posted_nanos
        free = posted - figures.unsettled_nanos - figures.held_nanos
        expired += expire_lots(organization, available_nanos=free).expired_nanos
    return expired
