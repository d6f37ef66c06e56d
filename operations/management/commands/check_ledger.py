"""manage.py check_ledger: does the book of record agree with itself and with Redis? Exits with 1 when it does not."""

from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.checks import (
    CHECKS,
    Books,
    Outcome,
    Span,
    admission_check,
    estimates_check,
    journal_check,
    open_months,
    prove_due_months,
    proven_check,
    proven_months,
    run_checks,
    span_of,
)
from billing.models import ProvenMonth


class Command(BaseCommand):
    help = "Checks every invariant that stored rows can prove, and lists what is broken, with ids."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--journal", metavar="FILE", help="Compare with this journal of the sandbox upstream too.")
        parser.add_argument(
            "--whole", action="store_true", help="Check all proven months again, not only those whose turn it is today."
        )
        parser.add_argument(
            "--prove", action="store_true", help="Then prove the months that are over, as the nightly job does."
        )
        parser.add_argument("--quiet", action="store_true", help="Print only what is broken, and the summary.")

    def handle(self, *args: Any, **options: Any) -> None:
        now = datetime.now(UTC)
        months, spans = _spans(now, whole=options["whole"])
        checks = [*CHECKS, proven_check(months)]
        if options["journal"]:
            checks += [journal_check(Path(options["journal"])), estimates_check(Path(options["journal"]))]
        try:
            report = run_checks(checks, spans)
        except OSError as error:
            raise CommandError(str(error)) from None
        redis_check = admission_check()
        report.outcomes.append((redis_check, redis_check.run(Books())))
        for check, outcome in report.outcomes:
            if outcome.breaks or not options["quiet"]:
                self.stdout.write(f"{_word(outcome):<7} {check.invariant:<4} {check.name}")
            if outcome.note and not options["quiet"]:
                self.stdout.write(f"        {outcome.note}")
            for line in outcome.breaks:
                self.stdout.write(f"        {line}")
        summary = f"{len(report.outcomes)} checks over {report.rows:,} rows: {len(report.breaks)} breaks"
        if report.breaks:
            raise CommandError(summary)
        self.stdout.write(summary)
        if options["prove"]:
            self._prove(now)
        last = ProvenMonth.objects.last()
        if last and not options["quiet"]:
            self.stdout.write(f"proven until the end of {last.month}: {last.sha256}")

    def _prove(self, now: datetime) -> None:
        for month, breaks in prove_due_months(CHECKS, now=now):
            self.stdout.write(f"{month} is {'not proven: it has breaks' if breaks else 'proven'}")


def _spans(now: datetime, *, whole: bool) -> tuple[list[ProvenMonth], list[Span]]:
    """Return the proven months that are read again, and all parts of the books that are checked."""
    months = proven_months(night=None if whole else now.date())
    return months, [*map(span_of, months), *(span for _, span in open_months(now=now))]


def _word(outcome: Outcome) -> str:
    if outcome.breaks:
        return "BROKEN"
    return "ok" if outcome.rows or not outcome.note else "-"
