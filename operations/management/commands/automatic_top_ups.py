"""manage.py automatic_top_ups: top up every organization that asked for it and is below its threshold."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.utils import timezone

from billing.ledger.statements import posted_nanos
from billing.money import format_usd
from billing.payments.automatic import due_organizations, run_automatic_top_ups


class Command(BaseCommand):
    help = "Tops up what is due; the worker does the same each minute. Twice at once, it is done once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Show who is due, and charge nobody.")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["dry_run"]:
            for organization in due_organizations(timezone.now()):
                self.stdout.write(f"{organization.slug}: balance {format_usd(posted_nanos(organization))} USD")
            return
        done = run_automatic_top_ups()
        self.stdout.write(f"{done.placed} automatic top-ups ordered, {done.resumed} asked about again")
