"""manage.py reconcile_payments: ask payment providers what was paid, and credit what was not credited."""

from argparse import ArgumentParser
from datetime import datetime, timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.outbox import publish_pending_changes
from billing.models import PaymentBreak
from billing.money import format_usd
from billing.payments.provider import PaymentProviderError
from billing.payments.providers import UnknownProviderError, current_provider
from billing.payments.pull import Pulled, pull_orders, pull_payments
from operations.management.arguments import read_day

MAX_DAYS = 366


class Command(BaseCommand):
    help = "Asks payment providers about orders and goes through their lists of payments. What was missed is credited."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--provider", default="", help="Whose list. Default: the provider that takes new payments.")
        parser.add_argument("--from", dest="start", type=read_day, metavar="DAY", help="Default: two days ago.")
        parser.add_argument("--days", type=int, default=3, help="How many days of the list, from there on.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 < options["days"] <= MAX_DAYS:
            raise CommandError(f"--days lies between 1 and {MAX_DAYS}.")
        today = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
        start: datetime = options["start"] or today - timedelta(days=2)
        orders = pull_orders()
        self._tell("orders", orders)
        failed = orders.failed
        provider = current_provider()
        name = options["provider"] or (provider.name if provider else "")
        if name:
            try:
                listed = pull_payments(name, start, start + timedelta(days=options["days"]))
            except (PaymentProviderError, UnknownProviderError) as error:
                raise CommandError(str(error)) from None
            self._tell(f"payments that {name} lists", listed)
            failed += listed.failed
        try:
            publish_pending_changes()
        except AdmissionUnavailableError as error:
            self.stdout.write(f"Redis cannot be told now ({error}); new balances follow once it is back.")
        breaks = PaymentBreak.objects.filter(resolved_at=None).count()
        self.stdout.write(f"{breaks} open breaks of payments")
        if failed:
            raise CommandError("A payment provider could not be asked, or not understood; see the log.")

    def _tell(self, what: str, pulled: Pulled) -> None:
        self.stdout.write(f"{pulled.asked} {what} looked at, {len(pulled.credited)} credited now")
        for top_up in pulled.credited:
            self.stdout.write(f"  {top_up} of {top_up.organization.slug}: {format_usd(top_up.amount_nanos)} USD")
