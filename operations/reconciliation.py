"""Reconciliation as it is run: what providers report is fetched, then books are compared; and the ledger check."""

import logging
from collections.abc import Sequence
from datetime import UTC, date, datetime

from django.conf import settings

from billing.models import ReconciliationRun, TopUp
from billing.payments.provider import PaymentProvider
from billing.payments.providers import NONE, UnknownProviderError, find_provider
from billing.reconciliation.runs import books_are_due, check_books, days_compared, due_days, reconcile
from operations.job_records import job, lives
from operations.provider_reports import ReportUnavailableError, fetch_reports

logger = logging.getLogger(__name__)


def reconcile_due(*, at_once: bool = False) -> None:
    """Compare the last days, unless that was done today or somebody is at it. Twice changes nothing.

    `at_once`: a person asks, so it is done whenever it was done last.
    """
    is_under_way = lives("reconcile")
    with job("reconcile"):  # Also where nothing is due: it has looked, and is not late.
        now = datetime.now(UTC)
        days = days_compared(now) if at_once else [] if is_under_way else due_days(now)
        if days:
            fetch_configured(days)
            reconcile(days, providers=payment_providers())


def check_ledger_due(*, at_once: bool = False) -> None:
    """Check that the books agree with themselves, unless that was done today or somebody is at it, as above."""
    is_under_way = lives("ledger_check")
    with job("ledger_check"):
        now = datetime.now(UTC)
        if at_once or (not is_under_way and books_are_due(now)):
            check_books(now=now)


def fetch_configured(days: Sequence[date]) -> list[str]:
    """Fetch what CROSSMODEL_PROVIDER_REPORTS names; return a line for each that could not be had."""
    problems = []
    for upstream in settings.PROVIDER_REPORTS:
        try:
            fetch_reports(upstream, first_day=min(days), last_day=max(days))
        except ReportUnavailableError as error:
            logger.warning("No report of %s: %s", upstream, error)
            problems.append(f"{upstream}: {error}")
    return problems


def payment_providers() -> list[PaymentProvider]:
    """Return the payment providers whose lists are compared: all that orders go or went to, and that can be asked."""
    names = set(TopUp.objects.order_by().values_list("provider", flat=True).distinct())
    names |= {settings.PAYMENT_PROVIDER} - {NONE}
    found = []
    for name in sorted(names):
        try:
            found.append(find_provider(name))
        except UnknownProviderError:
            logger.warning("The payments of %s are not compared: its settings are gone.", name)
    return found


def describe_run(run: ReconciliationRun) -> str:
    """Return a run in one line, as people read it."""
    what = f"{run.get_source_display()}, {run.day}" if run.day else f"{run.get_source_display()}, now"
    if run.note.startswith("Not compared"):
        return f"-       {what}: {run.note}"
    word = "BREAKS" if run.found else "ok"
    return f"{word:<7} {what}: {run.compared:,} compared, {run.found:,} differ" + (f"; {run.note}" if run.note else "")
