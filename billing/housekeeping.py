"""What is due from time to time: the expiry of credit lots, and the partitions of the months to come."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from django.conf import settings

from accounts.models import Organization
from billing.admission.feed import publish_organizations
from billing.admission.worker import read_figures
from billing.credit_lots import expire_lots, organizations_with_expired_lots
from billing.models import OrganizationBalance
from billing.partitions import create_partitions

logger = logging.getLogger(__name__)


def keep_house() -> list[str]:
    """Do all that is due, each part for itself, and return the names of the parts that failed; the log says why.

    Twice or late changes only when it is done.
    """
    parts: dict[str, Callable[[], object]] = {
        "the partitions of the months to come": lambda: create_partitions(now=datetime.now(UTC)),
        "the expiry of credit lots": expire_due_lots,
    }
    return [name for name, part in parts.items() if not _is_done(name, part)]


def _is_done(name: str, part: Callable[[], object]) -> bool:
    try:
        part()
    except Exception:
        logger.exception("Housekeeping: %s failed and is put off.", name)
        return False
    return True


def expire_due_lots() -> int:
    """Post the expiry of lots past their time, as far as no running request may need them. Returns nano-dollars.

    Raises the error of the last organization for which it could not be done, once it was tried for all.
    """
    expired = 0
    failure: Exception | None = None
    for organization in organizations_with_expired_lots():
        try:
            expired += _expire_lots_of(organization)
        except Exception as error:
            logger.warning("The lots of organization %d expire later: %s", organization.pk, error)
            failure = error
    if failure is not None:
        raise failure
    return expired


def _expire_lots_of(organization: Organization) -> int:
    publish_organizations([organization.pk])
    figures = read_figures(organization.pk)
    if figures is None or figures.stood_ms < settings.ADMISSION["lease_seconds"] * 1000:
        # What runs may not have been put back yet, and the lot may have to pay for it: a gateway has a lease for that.
        return 0
    # Read after the figures: what was settled in between counts twice, which keeps too much rather than too little.
    posted = OrganizationBalance.objects.get(pk=organization.pk).posted_nanos
    free = posted - figures.unsettled_nanos - figures.held_nanos
    return expire_lots(organization, available_nanos=free).expired_nanos
