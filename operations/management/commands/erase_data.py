"""manage.py erase_data: erase an organization, or a person. Money stays in the books, without their names."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.audit_entries import record
from billing.admission.errors import AdmissionUnavailableError
from billing.ledger.statements import posted_nanos
from billing.money import format_usd
from billing.privacy.erasure import CannotEraseError, erase_organization, erase_person, tables_with
from billing.privacy.places import WHY_KEPT, Fate
from operations.management.arguments import add_actor, named_actor
from operations.management.publishing import publish_or_say
from operations.management.subjects import add_subject, read_subject


class Command(BaseCommand):
    help = "Erases a closed organization, or a person. Without --yes it only says what would become of what."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_subject(parser)
        parser.add_argument("--yes", action="store_true", help="Erase. It cannot be undone.")
        add_actor(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        organization, person = read_subject(options)
        if organization is not None:
            self.stdout.write(f"Balance of {organization.slug}: {format_usd(posted_nanos(organization))} USD")
        if not options["yes"]:
            self._explain()
            return
        named_actor(options)
        try:
            counts = erase_organization(organization) if organization else erase_person(person)
        except (CannotEraseError, AdmissionUnavailableError) as error:
            raise CommandError(f"{error} Nothing was erased.") from None
        if organization is not None:
            record("erased", subject_table="accounts_organization", subject_id=organization.pk)
        else:
            record("erased", subject_table="accounts_user", subject_id=person.pk)
        for place, count in sorted(counts.items()):
            self.stdout.write(f"{count:,} {place}")
        publish_or_say(self.stdout, "what changed")

    def _explain(self) -> None:
        self.stdout.write("Nothing is erased without --yes. Of an organization:")
        for fate in Fate:
            self.stdout.write(f"  {fate}: {', '.join(tables_with(fate))}")
        for table, why in WHY_KEPT.items():
            self.stdout.write(f"  {table} is kept: {why}")
        self.stdout.write("Of a person: name, address, password, sessions, memberships and mail are erased;")
        self.stdout.write("  where they did something, 'person <number>' stands from then on.")
