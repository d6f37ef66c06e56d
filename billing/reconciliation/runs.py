"""Runs the comparisons: each for itself, so that one which cannot be made holds up no other."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial

from django.db import DatabaseError, InterfaceError
from django.db.models import QuerySet
from django.utils import timezone

from billing.admission.errors import AdmissionUnavailableError
from billing.checks import (
    CHECKS,
    Report,
    open_months,
    prove_due_months,
    proven_check,
    proven_months,
    run_checks,
    span_of,
)
from billing.models import ProvenMonth, ProviderReport, ReconciliationBreak, ReconciliationRun, ReconciliationSource
from billing.payments.provider import PaymentProviderError
from billing.reconciliation.admission import compare_with_redis
from billing.reconciliation.breaks import MAX_BREAKS_PER_RUN, Difference, note_differences
from billing.reconciliation.payments import ListsPayments, compare_payments, open_payment_breaks
from billing.reconciliation.provider_books import compare_cost, compare_usage
from billing.reconciliation.roll_ups import compare_roll_ups
from billing.watching import watched

# Each day is compared again on the two that follow: usage settles late, and providers correct their reports.
DAYS_COMPARED = 3
# Before this hour of a day, in UTC, the day before is not complete everywhere.
FIRST_HOUR = 3
MAX_NOTE_CHARS = 500
KEPT = timedelta(days=400)  # Runs; breaks are kept for ever.

Source = ReconciliationSource
logger = logging.getLogger(__name__)


class NotComparedError(Exception):
    """There is nothing to compare with; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Compared:
    count: int
    differences: Sequence[Difference]
    note: str = ""


def reconcile(days: Sequence[date], *, providers: Sequence[ListsPayments] = ()) -> list[ReconciliationRun]:
    """Compare the state of now, and each of these days; return the runs. Doing it twice changes nothing."""
    comparisons: list[tuple[Source, date | None, Callable[[], Compared]]]
    comparisons = [(Source.ADMISSION, None, _admission), (Source.PAYMENTS, None, _payment_breaks)]
    comparisons += [(source, day, compare) for day in days for source, compare in _comparisons_of(day, providers)]
    runs = [_run(*comparison) for comparison in watched(comparisons, len(comparisons))]
    ReconciliationRun.objects.filter(started_at__lt=timezone.now() - KEPT).delete()
    return runs


def check_books(*, now: datetime) -> list[ReconciliationRun]:
    """Check the proven months whose turn it is, and the open part of the books wholly; then prove what is due."""
    tonight = proven_months(night=now.date())
    # Of a day of its own, so that a break stays open until the month has its turn again.
    runs = [
        _run(Source.LEDGER, row.begins_on, partial(_check_proven_month, row)) for row in watched(tonight, len(tonight))
    ]
    # The last of them: once it has ended, books_are_due() says no.
    runs.append(_run(Source.LEDGER, None, lambda: _broken(_check_open_books(now))))
    for month, breaks in watched(prove_due_months(CHECKS, now=now)):
        logger.info("%s is %s.", month, "not proven, it has breaks" if breaks else "proven")
    return runs


def due_days(now: datetime) -> list[date]:
    """Return the days that are to be compared now: those of which the last comparison has not ended today."""
    if now.hour < FIRST_HOUR:
        return []
    compared = set(_ended_today(Source.PAYMENTS, now).values_list("day", flat=True))
    return [day for day in days_compared(now) if day not in compared]


def books_are_due(now: datetime) -> bool:
    """Say whether the books are to be checked now: a check that was killed in the middle is made again."""
    return now.hour >= FIRST_HOUR and not _ended_today(Source.LEDGER, now).filter(day=None).exists()


def days_compared(now: datetime) -> list[date]:
    """Return the days that are compared when it is done, latest first."""
    today = now.astimezone(UTC).date()
    return [today - timedelta(days=number) for number in range(1, DAYS_COMPARED + 1)]


def count_open_breaks() -> int:
    return ReconciliationBreak.objects.filter(state=ReconciliationBreak.State.OPEN).count()


def _ended_today(source: ReconciliationSource, now: datetime) -> QuerySet[ReconciliationRun]:
    begins = datetime.combine(now.astimezone(UTC).date(), datetime.min.time(), UTC)
    return ReconciliationRun.objects.filter(source=source, started_at__gte=begins, ended_at__isnull=False)


def _comparisons_of(
    day: date, providers: Sequence[ListsPayments]
) -> Iterator[tuple[ReconciliationSource, Callable[[], Compared]]]:
    yield Source.ROLL_UPS, lambda: Compared(*compare_roll_ups(day))
    yield Source.PROVIDER_USAGE, lambda: _reports(ProviderReport.Kind.USAGE, day)
    yield Source.PROVIDER_COST, lambda: _reports(ProviderReport.Kind.COST, day)
    yield Source.PAYMENTS, lambda: _payments(providers, day)  # The last, as due_days() takes it to be.


def _run(source: ReconciliationSource, day: date | None, compare: Callable[[], Compared]) -> ReconciliationRun:
    run = ReconciliationRun.objects.create(source=source, day=day)
    try:
        compared = compare()
    except NotComparedError as error:
        run.note = f"Not compared: {error}"
    except (AdmissionUnavailableError, PaymentProviderError) as error:
        logger.warning("Reconciliation of %s is put off: %s", source, error)
        run.note = f"Not compared: {error}"[:MAX_NOTE_CHARS]
    except (DatabaseError, InterfaceError):
        raise
    else:
        run.compared = compared.count
        run.found = note_differences(source, compared.differences, day=day)
        many = len(compared.differences)
        run.note = compared.note if many <= MAX_BREAKS_PER_RUN else f"{many} differ; the first are kept."
        run.note = run.note[:MAX_NOTE_CHARS]
    run.ended_at = timezone.now()
    run.save()
    return run


def _admission() -> Compared:
    return Compared(*compare_with_redis())


def _payment_breaks() -> Compared:
    found = open_payment_breaks()
    return Compared(len(found), found)


def _check_open_books(now: datetime) -> Report:
    return run_checks([*CHECKS, proven_check([])], [span for _, span in open_months(now=now)])


def _check_proven_month(row: ProvenMonth) -> Compared:
    checks = [check for check in CHECKS if not check.is_whole]
    return _broken(run_checks([*checks, proven_check([row])], [span_of(row)]))


def _broken(report: Report) -> Compared:
    return Compared(report.rows, [Difference(line, line, 0) for line in report.breaks])


def _reports(kind: ProviderReport.Kind, day: date) -> Compared:
    reports = list(ProviderReport.objects.filter(kind=kind, day=day))
    if not reports:
        raise NotComparedError("No provider's report of this day was imported.")
    compare = compare_usage if kind == ProviderReport.Kind.USAGE else compare_cost
    results = [compare(report) for report in reports]
    return Compared(sum(count for count, _ in results), [each for _, found in results for each in found])


def _payments(providers: Sequence[ListsPayments], day: date) -> Compared:
    if not providers:
        raise NotComparedError("No payment provider is set up.")
    results = [compare_payments(provider, day) for provider in providers]
    return Compared(sum(count for count, _ in results), [each for _, found in results for each in found])
