"""manage.py reseal_secrets: after DJANGO_SECRET_KEY was rotated, seal what is kept encrypted by the new one."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.second_factors import reseal_second_factors
from billing.ledger.seals import reseal_keys
from billing.webhooks.endpoints import reseal_secrets


class Command(BaseCommand):
    help = (
        "Seals webhook secrets, second factors and keys of the ledger's seals again that a key of"
        " DJANGO_SECRET_KEY_FALLBACKS has sealed; then that key may go."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Only count them.")

    def handle(self, *args: Any, **options: Any) -> None:
        word = "would be" if options["dry_run"] else "are"
        of_webhooks, endpoints = reseal_secrets(is_dry=options["dry_run"])
        of_people, people = reseal_second_factors(is_dry=options["dry_run"])
        self.stdout.write(f"{of_webhooks:,} webhook secrets {word} sealed by the new key.")
        self.stdout.write(f"{of_people:,} second factors {word} sealed by the new key.")
        of_ledger, lost_keys = reseal_keys(is_dry=options["dry_run"])
        self.stdout.write(f"{of_ledger:,} keys of the ledger's seals {word} sealed by the new key.")
        for endpoint in endpoints:
            self.stdout.write(f"Lost: {endpoint.url} of {endpoint.organization.slug}; its owner must rotate it.")
        for person in people:
            self.stdout.write(f"Lost: the second factor of {person.email}; take it away, and have it made again.")
        if lost_keys:
            self.stdout.write("Lost: a key of the ledger's seals; check_ledger names what was posted under it.")
        lost = len(endpoints) + len(people) + lost_keys
        if lost:
            raise CommandError(f"{lost:,} secrets are opened by no key that is configured.")
