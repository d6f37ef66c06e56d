"""manage.py refund REQUEST_ID --reason ...: give back what a request cost, or a part of it."""

import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Organization
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.feed import publish_pending_changes
from billing.ledger import IdempotencyConflictError
from billing.management.arguments import MAX_REASON_CHARS, acting_operator, add_actor, add_idempotency_key, text_of
from billing.models import UsageRecord
from billing.money import InvalidAmountError, format_usd, parse_usd
from billing.refunds import InvalidRefundError, refund_usage, refunded_nanos
from billing.request_id import parse_request_id
from billing.statements import posted_nanos


class Command(BaseCommand):
    help = "Gives back what a request cost, to the credit lots that paid for it, and prints the new balance."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("request_id", metavar="REQUEST_ID", help="As in its reply or receipt: req_..., msg_...")
        parser.add_argument("--amount", metavar="AMOUNT", help="US dollars, as a decimal number. Default: all of it.")
        parser.add_argument("--reason", type=text_of(MAX_REASON_CHARS), required=True, help="Why. Members see it.")
        add_idempotency_key(parser, "refunds")
        add_actor(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        request_id = parse_request_id(options["request_id"])
        record = UsageRecord.objects.filter(pk=request_id).first() if request_id else None
        if record is None:
            raise CommandError(f"No billed request has the id {options['request_id']!r}.")
        if not options["reason"].strip():
            raise CommandError("--reason is empty: a refund says why.")
        organization = Organization.objects.get(pk=record.organization_id)
        try:
            posted = refund_usage(
                organization,
                request_id=record.request_id,
                amount_nanos=parse_usd(options["amount"]) if options["amount"] else None,
                reason=options["reason"],
                actor=acting_operator(options),
                idempotency_key=options["idempotency_key"] or uuid.uuid4().hex,
            )
        except (InvalidAmountError, InvalidRefundError, IdempotencyConflictError) as error:
            raise CommandError(f"{error} Nothing was refunded.") from None
        if posted.is_new:
            self.stdout.write(
                f"{format_usd(refunded_nanos(record))} USD of {record.request_id.hex} are refunded by now."
            )
        else:
            self.stdout.write(f"Refunded before, as transaction {posted.transaction.pk}: nothing changed.")
        self.stdout.write(f"Balance of {organization.slug}: {format_usd(posted_nanos(organization))} USD")
        try:
            publish_pending_changes()
        except AdmissionUnavailableError as error:
            self.stdout.write(f"Redis cannot be told now ({error}); it will hear of the new balance once it is back.")
