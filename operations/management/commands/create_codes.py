"""manage.py create_codes AMOUNT --reason ...: make redemption codes, printed once and stored nowhere."""

import uuid
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.approvals.book import ApprovalError
from billing.approvals.codes import ask_for_codes
from billing.approvals.kinds import ChangeError
from billing.credit.redemption import InvalidCodeError
from billing.ledger.book import DEFAULT_PRIORITY
from billing.money import InvalidAmountError, format_usd, parse_usd
from operations.management.arguments import MAX_CODE_REASON_CHARS, named_actor, shell_user, text_of
from operations.management.asking import add_asking, confirm, operator_account
from operations.management.credit_arguments import MAX_PRIORITY, parse_expiry


class Command(BaseCommand):
    help = "Makes redemption codes and prints them, one a line. This is the only time that they are shown."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("amount", metavar="AMOUNT", help="US dollars that each code is worth.")
        parser.add_argument(
            "--reason",
            type=text_of(MAX_CODE_REASON_CHARS),
            required=True,
            help="What they are for. Members see it beside the credit.",
        )
        parser.add_argument("--count", type=int, default=1, help="How many codes.")
        parser.add_argument("--uses", type=int, default=1, help="How many organizations may redeem each.")
        parser.add_argument("--expires", metavar="DATE", help="ISO date or time (UTC) from which codes are refused.")
        parser.add_argument("--credit-expires", metavar="DATE", help="From when on their credit cannot be spent.")
        parser.add_argument("--priority", type=int, default=DEFAULT_PRIORITY, help="Lower is spent first.")
        add_asking(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 <= options["priority"] <= MAX_PRIORITY:
            raise CommandError(f"--priority lies between 0 and {MAX_PRIORITY}.")
        operator = operator_account(options)
        try:
            amount_nanos = parse_usd(options["amount"])
        except InvalidAmountError as error:
            raise CommandError(f"{error} No code was made.") from None
        worth = f"{options['count']} codes of {format_usd(amount_nanos)} USD, for {options['uses']} organizations each."
        if not confirm(self, options, [worth]):
            return
        values = {
            "amount_nanos": amount_nanos,
            "reason": options["reason"],
            "count": options["count"],
            "max_redemptions": options["uses"],
            "expires_at": parse_expiry(options["expires"]),
            "lot_expires_at": parse_expiry(options["credit_expires"]),
            "lot_priority": options["priority"],
        }
        try:
            asked, made = ask_for_codes(
                values,
                asked_by=operator,
                idempotency_key=f"codes:{uuid.uuid4().hex}",
                created_by=named_actor(options),
                shell_user=shell_user(),
            )
        except (InvalidCodeError, ChangeError, ApprovalError) as error:
            raise CommandError(f"{error} No code was made.") from None
        if asked.waits_because:
            self.stderr.write(
                f"Nobody can redeem them before a second person approves, as approval {asked.approval.pk}."
                f" {asked.waits_because}"
            )
        # The codes alone go to standard output, so that they can be piped into a file.
        self.stderr.write(f"{worth} Keep them: they are shown only now.")
        for new in made:
            self.stdout.write(new.text)
