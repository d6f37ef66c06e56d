"""manage.py check_tax_id: write down that somebody has checked an organization's tax id, and how."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.billing_details import TaxIdChangedError, record_tax_id_check
from accounts.models import Organization
from operations.management.arguments import acting_operator, add_actor, text_of

MAX_EVIDENCE_CHARS = 200


class Command(BaseCommand):
    help = (
        "Writes down that a tax id was checked. A check that got no answer is none: leave the state as it is. Documents"
        " that are issued from now on follow it."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("organization", metavar="SLUG")
        parser.add_argument("tax_id", help="The one that was checked; the organization may have another by now.")
        parser.add_argument("result", choices=["valid", "invalid"])
        parser.add_argument(
            "--evidence", required=True, type=text_of(MAX_EVIDENCE_CHARS), help="VIES, consultation 123"
        )
        add_actor(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        organization = Organization.objects.filter(slug=options["organization"]).first()
        if organization is None:
            raise CommandError(f"There is no organization {options['organization']!r}.")
        try:
            details = record_tax_id_check(
                organization,
                tax_id=options["tax_id"],
                is_valid=options["result"] == "valid",
                evidence=f"{options['evidence']}, by {acting_operator(options)}"[:300],
            )
        except TaxIdChangedError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(
            f"{organization.slug}: tax id {details.tax_id} is {details.get_tax_id_state_display().lower()}"
        )
