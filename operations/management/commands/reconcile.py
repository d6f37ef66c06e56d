"""manage.py reconcile: compare our books with each other and with those of providers."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.models import ReconciliationBreak
from billing.money import MINUS
from billing.reconciliation.runs import DAYS_COMPARED, reconcile
from operations.management.arguments import read_day
from operations.reconciliation import describe_run, fetch_configured, payment_providers

MAX_DAYS = 92
MAX_BREAKS_LISTED = 100
CENTS_PER_USD = 100


class Command(BaseCommand):
    help = "Compares now and past days, and lists the breaks that are open. Exits with 1 while there are any."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--from", dest="begins", type=read_day, metavar="YYYY-MM-DD", help="Default: three days ago."
        )
        parser.add_argument(
            "--to", dest="ends", type=read_day, metavar="YYYY-MM-DD", help="Included. Default: yesterday."
        )
        parser.add_argument("--fetch", action="store_true", help="First fetch what providers report of these days.")

    def handle(self, *args: Any, **options: Any) -> None:
        today = timezone.now().date()
        last = options["ends"].date() if options["ends"] else today - timedelta(days=1)
        first = options["begins"].date() if options["begins"] else last - timedelta(days=DAYS_COMPARED - 1)
        if not timedelta() <= last - first < timedelta(days=MAX_DAYS):
            raise CommandError(f"At most {MAX_DAYS} days are compared at once, from the first to the last.")
        if last >= today:
            raise CommandError(f"{last} is not over yet, in UTC.")
        days = [first + timedelta(days=number) for number in range((last - first).days + 1)]
        if options["fetch"]:
            for problem in fetch_configured(days):
                self.stdout.write(f"-       No report: {problem}")
        for run in reconcile(days, providers=payment_providers()):
            self.stdout.write(describe_run(run))
        self._list_open()

    def _list_open(self) -> None:
        rows = ReconciliationBreak.objects.filter(state=ReconciliationBreak.State.OPEN).select_related("owner")
        for row in rows.order_by("id")[:MAX_BREAKS_LISTED]:
            owner = row.owner.email if row.owner else "nobody"
            self.stdout.write(f"{row.pk}: {_dollars(row.amount_cents)}, {owner} sees to it: {row.detail}")
        count = rows.count()
        if count:
            raise CommandError(f"{count} {'break is' if count == 1 else 'breaks are'} open.")
        self.stdout.write("No break is open.")


def _dollars(cents: int) -> str:
    sign = MINUS if cents < 0 else "+" if cents else ""
    return f"{sign}${abs(cents) // CENTS_PER_USD:,}.{abs(cents) % CENTS_PER_USD:02d}"
