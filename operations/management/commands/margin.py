"""manage.py margin: what is left of what organizations paid, by model, organization, upstream or request."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.money import format_usd
from billing.usage.margin import Margin, WindowTooLongError, margins, request_margins
from operations.management.arguments import read_day

DEFAULT_DAYS = 30


class Command(BaseCommand):
    help = "Shows what was paid, what providers charged, and what is left. Days are UTC; --to is not included."

    def add_arguments(self, parser: ArgumentParser) -> None:
        tomorrow = timezone.now().date() + timedelta(days=1)
        parser.add_argument("--by", choices=["model", "organization", "upstream", "request"], default="model")
        parser.add_argument("--from", dest="begins", type=read_day, default=None, metavar="YYYY-MM-DD")
        parser.add_argument("--to", dest="ends", type=read_day, default=read_day(tomorrow.isoformat()))

    def handle(self, *args: Any, **options: Any) -> None:
        ends = options["ends"]
        begins = options["begins"] or ends - timedelta(days=DEFAULT_DAYS)
        try:
            if options["by"] == "request":
                rows = request_margins(begins=begins, ends=ends)
            else:
                rows = margins(options["by"], begins=begins, ends=ends)
        except WindowTooLongError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(_line(options["by"], "requests", "paid", "charged", "left", ""))
        for row in rows:
            self.stdout.write(_describe(row))


def _describe(row: Margin) -> str:
    percent = "" if row.margin_percent is None else f"{row.margin_percent:.1f} %"
    cost, upstream_cost, left = (
        format_usd(nanos) for nanos in (row.cost_nanos, row.upstream_cost_nanos, row.margin_nanos)
    )
    return _line(row.name, str(row.requests), cost, upstream_cost, left, percent)


def _line(name: str, requests: str, cost: str, upstream_cost: str, left: str, percent: str) -> str:
    return f"{name:<40} {requests:>10} {cost:>16} {upstream_cost:>16} {left:>16} {percent:>9}".rstrip()
