"""manage.py check_ledger: does the book of record agree with itself and with Redis?. Exits with 1 when it does not."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.checks import CHECKS, Outcome, admission_check, estimates_check, journal_check, run_checks


class Command(BaseCommand):
    help = "Checks every invariant that stored rows can prove, and lists what is broken, with ids."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--journal", metavar="FILE", help="Compare with this journal of the sandbox upstream too.")
        parser.add_argument("--quiet", action="store_true", help="Print only what is broken, and the summary.")

    def handle(self, *args: Any, **options: Any) -> None:
        checks = list(CHECKS)
        if options["journal"]:
            checks += [journal_check(Path(options["journal"])), estimates_check(Path(options["journal"]))]
        try:
            report = run_checks(checks)
        except OSError as error:
            raise CommandError(str(error)) from None
        redis_check = admission_check()
        report.outcomes.append((redis_check, redis_check.run()))
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


def _word(outcome: Outcome) -> str:
    if outcome.breaks:
        return "BROKEN"
    return "ok" if outcome.rows or not outcome.note else "-"
