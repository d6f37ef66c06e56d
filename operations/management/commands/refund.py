"""manage.py refund REQUEST_ID --reason ...: give back what a request cost, or a part of it."""

import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Organization
from billing.corrections.refunds import refundable_nanos, refunded_nanos
from billing.ledger.statements import posted_nanos
from billing.models import Approval, UsageRecord
from billing.money import InvalidAmountError, format_usd, parse_usd
from billing.request_id import parse_request_id
from operations.management.arguments import MAX_REASON_CHARS, add_idempotency_key, text_of
from operations.management.asking import add_asking, ask_as_operator
from operations.management.publishing import publish_or_say


class Command(BaseCommand):
    help = "Gives back what a request cost, to the credit lots that paid for it, and prints the new balance."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("request_id", metavar="REQUEST_ID", help="As in its reply or receipt: req_..., msg_...")
        parser.add_argument("--amount", metavar="AMOUNT", help="US dollars, as a decimal number. Default: all of it.")
        parser.add_argument("--reason", type=text_of(MAX_REASON_CHARS), required=True, help="Why. Members see it.")
        add_idempotency_key(parser, "refunds")
        add_asking(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        request_id = parse_request_id(options["request_id"])
        record = UsageRecord.objects.filter(pk=request_id).first() if request_id else None
        if record is None:
            raise CommandError(f"No billed request has the id {options['request_id']!r}.")
        if not options["reason"].strip():
            raise CommandError("--reason is empty: a refund says why.")
        organization = Organization.objects.get(pk=record.organization_id)
        try:
            amount_nanos = parse_usd(options["amount"]) if options["amount"] else None
        except InvalidAmountError as error:
            raise CommandError(f"{error} Nothing was refunded.") from None
        # What it cost, also where a part was given back before: the same key asks for the same again.
        most = refundable_nanos(record)
        asked = ask_as_operator(
            self,
            options,
            Approval.Kind.USAGE_REFUND,
            organization=organization,
            terms={"request_id": record.request_id.hex, "amount_nanos": amount_nanos},
            amount_nanos=max(0, most if amount_nanos is None else amount_nanos),
            idempotency_key=f"usage_refund:{record.request_id.hex}:{options['idempotency_key'] or uuid.uuid4().hex}",
            unchanged="Nothing was refunded.",
        )
        if asked is None:
            return
        if asked.is_new:
            self.stdout.write(
                f"{format_usd(refunded_nanos(record))} USD of {record.request_id.hex} are refunded by now."
            )
        elif asked.transaction is not None:
            self.stdout.write(f"Refunded before, as transaction {asked.transaction.pk}: nothing changed.")
        self.stdout.write(f"Balance of {organization.slug}: {format_usd(posted_nanos(organization))} USD")
        publish_or_say(self.stdout)
