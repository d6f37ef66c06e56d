"""What is due from time to time: the expiry of credit lots, the partitions of the months to come,
and the end of what is kept for a while only."""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from django.conf import settings

from accounts.models import Organization
from accounts.sessions import forget_ended_sessions
from billing.admission.blocking import read_admission_state
from billing.admission.outbox import epoch_day, publish_organizations
from billing.approvals.book import expire_old
from billing.budgets.spent import forget_old_spender_days
from billing.credit.lots import expire_lots, organizations_with_expired_lots
from billing.models import OrganizationBalance
from billing.partitions import create_partitions
from billing.usage.refusals import forget_old_refusals
from billing.watching import watched

logger = logging.getLogger(__name__)


def run_maintenance() -> list[str]:
    """Do all that is due, each part for itself, and return the names of the parts that failed; the log says why.

    Twice or late changes only when it is done.
    """
    return do_each_part(
        {
            "the partitions of the months to come": lambda: create_partitions(now=datetime.now(UTC)),
            "the expiry of credit lots": expire_due_lots,
            "forgetting what members and end users spent long ago": lambda: forget_old_spender_days(
                today=epoch_day(datetime.now(UTC))
            ),
            "approvals that waited too long": lambda: expire_old(now=datetime.now(UTC)),
            "forgetting sign-ins that have ended": lambda: forget_ended_sessions(now=datetime.now(UTC)),
            "forgetting old refusals": lambda: forget_old_refusals(now=datetime.now(UTC)),
        }
    )


def do_each_part(parts: Mapping[str, Callable[[], object]]) -> list[str]:
    """Do each part of a job for itself, and return the names of those that failed; the log says why."""
    return [name for name, part in watched(parts.items(), len(parts)) if not _is_done(name, part)]


def _is_done(name: str, part: Callable[[], object]) -> bool:
    try:
        part()
    except Exception:
        logger.exception("A job: %s failed and is tried again later.", name)
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
            logger.warning("The expiry of lots of organization %d is posted later: %s", organization.pk, error)
            failure = error
    if failure is not None:
        raise failure
    return expired


def _expire_lots_of(organization: Organization) -> int:
    publish_organizations([organization.pk])
    state = read_admission_state(organization.pk)
    if state is None or state.stood_ms < settings.ADMISSION.lease_seconds * 1000:
        # What runs may not have been put back yet, and the lot may have to pay for it: a gateway has a lease for that.
        return 0
    # Read after the state: what was settled in between counts twice, which keeps too much rather than too little.
    posted = OrganizationBalance.objects.get(pk=organization.pk).posted_nanos
    free = posted - state.unsettled_nanos - state.held_nanos
    return expire_lots(organization, available_nanos=free).expired_nanos
