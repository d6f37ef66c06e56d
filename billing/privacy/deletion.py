"""An owner asks that a closed organization be deleted; in a while, in which each owner can take it back, it is erased.

Until then owners and the billing role read and download documents. It waits on, and says why, while something is owed,
a month is without its documents, or requests still run.
"""

import logging
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from accounts.audit_entries import record
from accounts.closing import WrongNameError
from accounts.models import Member, Organization, Role
from billing.admission.errors import AdmissionUnavailableError
from billing.documents.closing import last_month_over
from billing.documents.invoices import find_unfinished_months
from billing.documents.periods import month_of
from billing.ledger.statements import posted_nanos
from billing.mail_outbox import MailToQueue, queue_mails
from billing.models import DeletionRequest
from billing.privacy.erasure import CannotEraseError, erase_organization

WAITING = timedelta(days=30)
AFTER_A_MONTH = timedelta(days=3)  # So long after its last month ended everybody's documents are there.
ERASES = "system"
OWES = "What is owed is not paid."

logger = logging.getLogger(__name__)


class CannotDeleteError(Exception):
    """It cannot be asked for; the text says why, for people."""


def request_deletion(organization: Organization, *, name: str, actor: str) -> DeletionRequest:
    """Have a closed organization erased once WAITING is over and its last month has its documents; tell its owners.

    Asked again, the request that stands is returned. Raises WrongNameError, CannotDeleteError.
    """
    with transaction.atomic():
        locked = Organization.objects.select_for_update().get(pk=organization.pk)
        if name.strip() != locked.name.strip():
            raise WrongNameError
        if locked.status != Organization.Status.CLOSED:
            raise CannotDeleteError("Close the organization first.")
        if posted_nanos(locked) < 0:
            raise CannotDeleteError("Pay first what is owed.")
        stands = find_deletion(locked)
        if stands is not None:
            return stands
        now = timezone.now()
        erase_after = max(now + WAITING, month_of(now).ends + AFTER_A_MONTH)
        made = DeletionRequest.objects.create(organization=locked, made_by=actor, erase_after=erase_after)
        owners = Member.objects.filter(organization=locked, role=Role.OWNER, user__is_active=True)
        queue_mails(
            MailToQueue(
                user_id=user_id,
                organization_id=locked.pk,
                template="deletion",
                once_key=f"deletion:{made.pk}:{user_id}",
                context={"deletion": made.pk},
            )
            for user_id in owners.order_by("user_id").values_list("user_id", flat=True)
        )
    return made


def withdraw_deletion(organization: Organization, *, actor: str) -> bool:
    """Take the request back; say whether there was one."""
    standing = DeletionRequest.objects.filter(organization=organization, ended_at=None)
    return bool(standing.update(ended_at=timezone.now(), ended_by=actor))


def find_deletion(organization: Organization) -> DeletionRequest | None:
    """Return the request that stands."""
    standing = DeletionRequest.objects.filter(organization=organization, ended_at=None)
    return standing.select_related("organization").first()


def due_deletions(now: datetime) -> list[DeletionRequest]:
    """Return the requests whose time has come, the oldest first."""
    due = DeletionRequest.objects.filter(ended_at=None, erase_after__lte=now).select_related("organization")
    return list(due.order_by("erase_after"))


def erase_due_organizations(*, now: datetime) -> int:
    """Erase what is due, and return how many organizations that were. One that must wait holds up no other."""
    erased = 0
    for due in due_deletions(now):
        request = find_deletion(due.organization)  # Erasing takes a while: this one may have been withdrawn since.
        if request is None:
            continue
        organization = request.organization
        if organization.status != Organization.Status.CLOSED:
            withdraw_deletion(organization, actor=ERASES)  # An operator has opened it again.
            continue
        try:
            _refuse_what_waits(organization)
            erase_organization(organization)
        except CannotEraseError as error:
            logger.warning("%s waits to be erased: %s", organization.slug, error)
            DeletionRequest.objects.filter(pk=request.pk).update(waits_because=str(error)[:300])
            continue
        except AdmissionUnavailableError as error:  # The next run asks again; owners need not know of our Redis.
            logger.warning("%s waits to be erased: %s", organization.slug, error)
            continue
        record("erased", subject_table="accounts_organization", subject_id=organization.pk)
        erased += 1
    return erased


def _refuse_what_waits(organization: Organization) -> None:
    """Raise CannotEraseError where documents or money are still to come."""
    if posted_nanos(organization) < 0:
        raise CannotEraseError(OWES)
    months = find_unfinished_months(organization, last_month_over())
    if months:
        raise CannotEraseError(f"The documents of {months[0]} are not written.")
