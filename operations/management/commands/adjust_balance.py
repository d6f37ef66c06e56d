"""manage.py adjust_balance ORG AMOUNT --reason ...: correct a balance by hand, up or down."""

import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.ledger.statements import posted_nanos
from billing.models import Approval
from billing.money import InvalidAmountError, format_usd, parse_usd
from operations.management.arguments import add_idempotency_key
from operations.management.asking import add_asking, ask_as_operator
from operations.management.credit_arguments import add_credit_arguments, find_organization, require_reason
from operations.management.publishing import publish_or_say


class Command(BaseCommand):
    help = "Corrects the balance of an organization against revenue, and prints the new one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_credit_arguments(
            parser,
            amount="US dollars; put -- before a negative amount.",
            reason="Why. Members see it.",
            kind="What an amount above zero becomes. Default: promotional credit.",
        )
        add_idempotency_key(parser, "adjusts")
        add_asking(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        organization = find_organization(options["organization"])
        require_reason(options, "an adjustment")
        try:
            amount_nanos = parse_usd(options["amount"])
        except InvalidAmountError as error:
            raise CommandError(f"{error} Nothing was adjusted.") from None
        asked = ask_as_operator(
            self,
            options,
            Approval.Kind.ADJUSTMENT,
            organization=organization,
            terms={"amount_nanos": amount_nanos, "lot_kind": options["kind"]},
            amount_nanos=abs(amount_nanos),
            idempotency_key=f"adjustment:{options['idempotency_key'] or uuid.uuid4().hex}",
            unchanged="Nothing was adjusted.",
        )
        if asked is None:
            return
        if not asked.is_new and asked.transaction is not None:
            self.stdout.write(f"Adjusted before, as transaction {asked.transaction.pk}: nothing changed.")
        self.stdout.write(f"Balance of {organization.slug}: {format_usd(posted_nanos(organization))} USD")
        publish_or_say(self.stdout)
