"""manage.py run_job NAME: run a job of the registry here and now, or show what it would do."""

from argparse import ArgumentParser
from itertools import islice
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.admission.errors import AdmissionUnavailableError
from operations.job_work import MAX_SHOWN, WORK
from operations.jobs import BY_NAME, read_standings
from operations.models import JobState
from operations.provider_accounts import ProviderSilentError


class Command(BaseCommand):
    help = "Runs a job in this process, as a worker would; twice at once does no harm. Without a name it lists them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("job", nargs="?", choices=sorted(WORK), metavar="NAME")
        parser.add_argument("--dry-run", action="store_true", help="Show what is due, and do nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["job"]
        if name is None:
            for standing in read_standings():
                every = f"every {standing.job.every}"
                self.stdout.write(f"{standing.job.name:<18} {standing.word:<16} {every:<14} {standing.job.what}")
            return
        try:
            if options["dry_run"]:
                self._show(name)
                return
            WORK[name].run()
        except (AdmissionUnavailableError, ProviderSilentError) as error:
            raise CommandError(str(error)) from None
        state = JobState.objects.filter(name=name).first()
        if state is not None and state.failures_in_a_row:
            raise CommandError(f"{name} failed: {state.last_failure}")
        took = f" It took {state.took_ms:,} ms." if state is not None else ""
        self.stdout.write(f"{name} is done.{took}")

    def _show(self, name: str) -> None:
        self.stdout.write(BY_NAME[name].what)
        lines = list(islice(WORK[name].due(), MAX_SHOWN + 1))
        for line in lines[:MAX_SHOWN]:
            self.stdout.write(f"would {line}")
        if len(lines) > MAX_SHOWN:
            self.stdout.write("and more")
        if not lines:
            self.stdout.write("Nothing is due.")
