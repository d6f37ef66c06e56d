"""manage.py keep_details SLUG DAYS: how long the details of an organization's requests are kept."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import Organization
from billing.privacy.retention import RetentionError, choose_retention
from operations.management.arguments import acting_operator, add_actor

FOREVER = "forever"


class Command(BaseCommand):
    help = "Sets for how many days end users, tags, sessions and clients of requests are kept; records stay."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("organization", metavar="SLUG")
        parser.add_argument("days", metavar="DAYS", help=f"A number of days, or '{FOREVER}'.")
        add_actor(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        organization = Organization.objects.filter(slug=options["organization"]).first()
        if organization is None:
            raise CommandError(f"There is no organization {options['organization']}.")
        text = options["days"]
        if text != FOREVER and not text.isdecimal():
            raise CommandError(f"{text!r} is no number of days.")
        try:
            row = choose_retention(
                organization,
                details_days=None if text == FOREVER else int(text),
                actor=acting_operator(options),
            )
        except RetentionError as error:
            raise CommandError(str(error)) from None
        kept = f"for {row.details_days} days" if row.details_days else FOREVER
        self.stdout.write(f"Details of {organization.slug} are kept {kept}.")
