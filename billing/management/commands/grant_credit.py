"""manage.py grant_credit ORG AMOUNT --reason ...: give promotional credit, or book paid credit by hand."""

import uuid
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.dateparse import parse_datetime

from accounts.models import Organization
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.feed import publish_pending_changes
from billing.ledger import DEFAULT_PRIORITY, IdempotencyConflictError
from billing.management.arguments import MAX_REASON_CHARS, acting_operator, add_actor, add_idempotency_key, text_of
from billing.models import CreditLot
from billing.money import InvalidAmountError, format_usd, parse_usd
from billing.statements import posted_nanos
from billing.top_ups import InvalidTopUpError, grant_credit

MAX_PRIORITY = 32_767


class Command(BaseCommand):
    help = "Gives an organization credit as one lot, and prints its new balance."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("organization", metavar="ORG", help="Slug or id of the organization.")
        parser.add_argument("amount", metavar="AMOUNT", help="US dollars, as a decimal number.")
        parser.add_argument("--reason", type=text_of(MAX_REASON_CHARS), required=True, help="Why, for the record.")
        parser.add_argument(
            "--kind",
            choices=CreditLot.Kind.values,
            default=CreditLot.Kind.PROMOTIONAL.value,
            help="paid: money that came in by hand; promotional (default): given away.",
        )
        parser.add_argument("--expires", metavar="DATE", help="ISO date or time (UTC) from which it cannot be spent.")
        parser.add_argument("--priority", type=int, default=DEFAULT_PRIORITY, help="Lower is spent first.")
        add_idempotency_key(parser, "grants")
        add_actor(parser, "Who grants it. Default: the user of the shell.")

    def handle(self, *args: Any, **options: Any) -> None:
        organization = find_organization(options["organization"])
        if not options["reason"].strip():
            raise CommandError("--reason is empty: a grant says why.")
        if not 0 <= options["priority"] <= MAX_PRIORITY:
            raise CommandError(f"--priority lies between 0 and {MAX_PRIORITY}.")
        try:
            posted = grant_credit(
                organization,
                amount_nanos=parse_usd(options["amount"]),
                kind=CreditLot.Kind(options["kind"]),
                reason=options["reason"],
                actor=acting_operator(options),
                idempotency_key=options["idempotency_key"] or f"grant:{uuid.uuid4()}",
                expires_at=parse_expiry(options["expires"]),
                priority=options["priority"],
            )
        except (InvalidAmountError, InvalidTopUpError, IdempotencyConflictError) as error:
            raise CommandError(f"{error} Nothing was granted.") from None
        if posted.is_new:
            self.stdout.write(f"Granted {format_usd(parse_usd(options['amount']))} USD to {organization.slug}.")
        else:
            self.stdout.write(f"Granted before, as transaction {posted.transaction.pk}: nothing changed.")
        self.stdout.write(f"Balance: {format_usd(posted_nanos(organization))} USD")
        try:
            publish_pending_changes()
        except AdmissionUnavailableError as error:
            self.stdout.write(f"Redis cannot be told now ({error}); it will hear of the new balance once it is back.")


def find_organization(text: str) -> Organization:
    """Return the organization with this slug or, failing that, this id. Raises CommandError."""
    organization = Organization.objects.filter(slug=text).first()
    if organization is None and text.isascii() and text.isdigit() and len(text) < 19:
        organization = Organization.objects.filter(pk=int(text)).first()
    if organization is None:
        raise CommandError(f"No organization has the slug or id {text!r}.")
    return organization


def parse_expiry(text: str | None) -> datetime | None:
    """Return the moment in `text`, midnight UTC for a date. Raises CommandError."""
    if text is None:
        return None
    try:
        moment = parse_datetime(text if "T" in text or " " in text else f"{text}T00:00")
    except ValueError as error:
        raise CommandError(f"--expires {text!r}: {error}") from None
    if moment is None:
        raise CommandError(f"--expires {text!r} is no date such as 2027-12-31.")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
