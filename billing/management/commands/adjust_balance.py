"""manage.py adjust_balance ORG AMOUNT --reason ...: correct a balance by hand, up or down."""

import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.feed import publish_pending_changes
from billing.ledger import IdempotencyConflictError
from billing.management.arguments import MAX_REASON_CHARS, acting_operator, add_actor, add_idempotency_key, text_of
from billing.management.commands.grant_credit import find_organization
from billing.models import CreditLot
from billing.money import InvalidAmountError, format_usd, parse_usd
from billing.refunds import InvalidAdjustmentError, adjust_balance
from billing.statements import posted_nanos


class Command(BaseCommand):
    help = "Corrects the balance of an organization against revenue, and prints the new one."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("organization", metavar="ORG", help="Slug or id of the organization.")
        parser.add_argument("amount", metavar="AMOUNT", help="US dollars; put -- before a negative amount.")
        parser.add_argument("--reason", type=text_of(MAX_REASON_CHARS), required=True, help="Why. Members see it.")
        parser.add_argument(
            "--kind",
            choices=CreditLot.Kind.values,
            default=CreditLot.Kind.PROMOTIONAL.value,
            help="What an amount above zero becomes. Default: promotional credit.",
        )
        add_idempotency_key(parser, "adjusts")
        add_actor(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        organization = find_organization(options["organization"])
        if not options["reason"].strip():
            raise CommandError("--reason is empty: an adjustment says why.")
        try:
            posted = adjust_balance(
                organization,
                amount_nanos=parse_usd(options["amount"]),
                reason=options["reason"],
                actor=acting_operator(options),
                idempotency_key=f"adjustment:{options['idempotency_key'] or uuid.uuid4().hex}",
                lot_kind=CreditLot.Kind(options["kind"]),
            )
        except (InvalidAmountError, InvalidAdjustmentError, IdempotencyConflictError) as error:
            raise CommandError(f"{error} Nothing was adjusted.") from None
        if not posted.is_new:
            self.stdout.write(f"Adjusted before, as transaction {posted.transaction.pk}: nothing changed.")
        self.stdout.write(f"Balance of {organization.slug}: {format_usd(posted_nanos(organization))} USD")
        try:
            publish_pending_changes()
        except AdmissionUnavailableError as error:
            self.stdout.write(f"Redis cannot be told now ({error}); it will hear of the new balance once it is back.")
