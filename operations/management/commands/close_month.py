"""manage.py close_month: write the invoices and credit notes of a month that is over."""

from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Organization
from billing.documents.closing import Closing, close_everywhere, last_month_over
from billing.documents.invoices import draft_month, find_unfinished_months, organizations_to_close
from billing.documents.periods import InvalidPeriodError, Month, parse_month
from billing.money import format_usd


class Command(BaseCommand):
    help = (
        "Closes a month for every organization: invoices, credit notes, tax. Months before it that were not closed are"
        " closed first. Doing it again, or twice at once, changes nothing; stopped midway, doing it again does the"
        " rest."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("month", nargs="?", type=read_month, help="2026-11; default: the last one that is over.")
        parser.add_argument("--dry-run", action="store_true", help="Show what would be billed, and write nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        over = last_month_over()
        month = options["month"] or over
        if month > over:
            raise CommandError(f"{month.name} ends at {month.ends:%Y-%m-%d %H:%M} UTC.")
        if options["dry_run"]:
            self._show(month)
            return
        closings = list(self._close(month))
        failed = sum(1 for closing in closings if closing.error is not None)
        documents = sum(len(closing.documents) for closing in closings)
        summary = f"{month}: {documents} documents for {len(closings) - failed} organizations"
        if failed:
            raise CommandError(f"{summary}; {failed} could not be closed.")
        self.stdout.write(summary)

    def _close(self, month: Month) -> "list[Closing]":
        closings = []
        for closing in close_everywhere(month):
            closings.append(closing)
            for document in closing.documents:
                month_text = document.closed_month.month if document.closed_month else ""
                gross = format_usd(document.gross_cents * 10_000_000)
                self.stdout.write(f"{closing.organization.slug:<30} {month_text} {document.label} {gross:>14} USD")
            if closing.error is not None:
                self.stdout.write(f"{closing.organization.slug:<30} not closed: {closing.error}")
        return closings

    def _show(self, month: Month) -> None:
        organizations = organizations_to_close(month)
        for organization in organizations:
            self.stdout.write(_describe(organization, month))
        self.stdout.write(f"{month}: {organizations.count()} organizations would be closed")


def _describe(organization: Organization, month: Month) -> str:
    unfinished = find_unfinished_months(organization, month)
    if len(unfinished) > 1:
        return f"{organization.slug:<30} {len(unfinished)} months, from {unfinished[0]} on"
    drafts = [draft for draft in draft_month(organization, month) if not draft.is_empty]
    nets = ", ".join(f"{len(draft.lines)} lines, net {format_usd(draft.net_nanos)} USD" for draft in drafts)
    return f"{organization.slug:<30} {nets or 'nothing to bill'}"


def read_month(text: str) -> Month:
    """Return a month; a type for argparse."""
    try:
        return parse_month(text)
    except InvalidPeriodError as error:
        raise ArgumentTypeError(str(error)) from None
