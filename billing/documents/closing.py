"""Closing a month for everybody: organization by organization, each for itself."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from accounts.models import Organization
from billing.bulk_rows import fetch_all
from billing.documents.invoices import close_month, organizations_to_close
from billing.documents.periods import Month, month_of
from billing.documents.receipts import issue_receipt, payments_without_receipt
from billing.models import Document
from billing.watching import watched

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Closing:
    """What closing did for one organization: documents, or the error that stopped it."""

    organization: Organization
    documents: list[Document]
    error: Exception | None = None


def last_month_over() -> Month:
    """Return the last month that has ended by the clock of the ledger."""
    now: datetime = fetch_all("SELECT clock_timestamp()")[0][0]
    return month_of(now).previous


def close_everywhere(last: Month) -> Iterator[Closing]:
    """Close the months up to `last` of every organization that has not, and yield what was done for each.

    One that fails holds up no other. Stopped at any point, doing it again does the rest; beside another run, each
    document is written once.
    """
    organizations = organizations_to_close(last)
    for organization in watched(organizations, organizations.count()):
        try:
            yield Closing(organization, close_month(organization, last))
        except Exception as error:
            logger.exception("The month %s of organization %d is not closed.", last, organization.pk)
            yield Closing(organization, [], error)


def issue_receipts(organization: Organization | None = None) -> int:
    """Write the receipts of payments that have none, of one organization or of all; return how many that were."""
    return len([issue_receipt(payment) for payment in watched(payments_without_receipt(organization))])


def count_late_closings() -> int:
    """Return how many organizations still have no documents of a month that is over."""
    return organizations_to_close(last_month_over()).count()
