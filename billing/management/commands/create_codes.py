"""manage.py create_codes AMOUNT --reason ...: make redemption codes, printed once and stored nowhere."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.ledger import DEFAULT_PRIORITY
from billing.management.arguments import MAX_CODE_REASON_CHARS, acting_operator, add_actor, text_of
from billing.management.commands.grant_credit import MAX_PRIORITY, parse_expiry
from billing.money import InvalidAmountError, format_usd, parse_usd
from billing.redemption import InvalidCodeError, create_codes


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
        add_actor(parser, "Who makes them. Default: the user of the shell.")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 0 <= options["priority"] <= MAX_PRIORITY:
            raise CommandError(f"--priority lies between 0 and {MAX_PRIORITY}.")
        try:
            amount_nanos = parse_usd(options["amount"])
            made = create_codes(
                amount_nanos=amount_nanos,
                reason=options["reason"],
                created_by=acting_operator(options),
                count=options["count"],
                max_redemptions=options["uses"],
                expires_at=parse_expiry(options["expires"]),
                lot_expires_at=parse_expiry(options["credit_expires"]),
                lot_priority=options["priority"],
            )
        except (InvalidAmountError, InvalidCodeError) as error:
            raise CommandError(f"{error} No code was made.") from None
        # The codes alone go to standard output, so that they can be piped into a file.
        self.stderr.write(
            f"{len(made)} codes of {format_usd(amount_nanos)} USD, for {options['uses']} organizations each."
            " Keep them: they are shown only now."
        )
        for new in made:
            self.stdout.write(new.text)
