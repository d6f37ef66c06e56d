"""manage.py grant_credit ORG AMOUNT --reason ...: give promotional credit, or book paid credit by hand."""

import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.ledger.book import DEFAULT_PRIORITY
from billing.ledger.statements import posted_nanos
from billing.models import Approval
from billing.money import InvalidAmountError, format_usd, parse_usd
from operations.management.arguments import add_idempotency_key
from operations.management.asking import add_asking, ask_as_operator
from operations.management.credit_arguments import (
    MAX_PRIORITY,
    add_credit_arguments,
    find_organization,
    parse_expiry,
    require_reason,
)
from operations.management.publishing import publish_or_say


class Command(BaseCommand):
    help = "Gives an organization credit as one lot, and prints its new balance."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_credit_arguments(
            parser,
            amount="US dollars, as a decimal number.",
            reason="Why, for the record.",
            kind="paid: money that came in by hand; promotional (default): given away.",
        )
        parser.add_argument("--expires", metavar="DATE", help="ISO date or time (UTC) from which it cannot be spent.")
        parser.add_argument("--priority", type=int, default=DEFAULT_PRIORITY, help="Lower is spent first.")
        add_idempotency_key(parser, "grants")
        add_asking(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        organization = find_organization(options["organization"])
        require_reason(options, "a grant")
        if not 0 <= options["priority"] <= MAX_PRIORITY:
            raise CommandError(f"--priority lies between 0 and {MAX_PRIORITY}.")
        amount_nanos = _read(options["amount"])
        asked = ask_as_operator(
            self,
            options,
            Approval.Kind.GRANT,
            organization=organization,
            terms={
                "amount_nanos": amount_nanos,
                "lot_kind": options["kind"],
                "expires_at": expires_at.isoformat() if (expires_at := parse_expiry(options["expires"])) else None,
                "priority": options["priority"],
            },
            amount_nanos=abs(amount_nanos),
            idempotency_key=options["idempotency_key"] or f"grant:{uuid.uuid4()}",
            unchanged="Nothing was granted.",
        )
        if asked is None:
            return
        if asked.is_new:
            self.stdout.write(f"Granted {format_usd(amount_nanos)} USD to {organization.slug}.")
        elif asked.transaction is not None:
            self.stdout.write(f"Granted before, as transaction {asked.transaction.pk}: nothing changed.")
        self.stdout.write(f"Balance: {format_usd(posted_nanos(organization))} USD")
        publish_or_say(self.stdout)


def _read(amount: str) -> int:
    try:
        return parse_usd(amount)
    except InvalidAmountError as error:
        raise CommandError(f"{error} Nothing was granted.") from None
