"""manage.py resolve_quarantine: list quarantined events, settle one after a fix, or give one up."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.admission.errors import AdmissionUnavailableError
from billing.admission.feed import publish_pending_changes
from billing.management.arguments import MAX_REASON_CHARS, acting_operator, add_actor, text_of
from billing.models import UsageQuarantine
from billing.quarantine_resolution import ResolutionError, discard_quarantined, settle_quarantined

MAX_ROWS_LISTED = 100


class Command(BaseCommand):
    help = "Without an ID lists what is in quarantine; with one shows the event, settles it, or gives it up."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", nargs="?", type=int, metavar="ID", help="Number of the event, as listed.")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--settle", action="store_true", help="Settle it again, after its fault was repaired.")
        how.add_argument("--discard", action="store_true", help="Give it up: nobody is ever charged for it.")
        parser.add_argument(
            "--reason",
            type=text_of(MAX_REASON_CHARS),
            default="",
            help="Why, for the record; needed to settle and to discard.",
        )
        add_actor(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        if options["id"] is None:
            self._list()
            return
        row = UsageQuarantine.objects.filter(pk=options["id"]).select_related("organization").first()
        if row is None:
            raise CommandError(f"No quarantined event has the number {options['id']}.")
        if not options["settle"] and not options["discard"]:
            self._show(row)
            return
        resolve = settle_quarantined if options["settle"] else discard_quarantined
        try:
            resolve(row, actor=acting_operator(options), reason=options["reason"])
        except ResolutionError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"Event {row.pk} is {'settled' if options['settle'] else 'discarded'}.")
        try:
            publish_pending_changes()
        except AdmissionUnavailableError as error:
            self.stdout.write(f"Redis cannot be told now ({error}); it will hear of it once it is back.")

    def _list(self) -> None:
        rows = UsageQuarantine.objects.filter(resolved_at=None).select_related("organization").order_by("pk")
        for row in rows[:MAX_ROWS_LISTED]:
            self.stdout.write(
                f"{row.pk}: {row.organization or 'no organization'}, {row.created_at:%F %T}: {row.reason}"
            )
        if not rows:
            self.stdout.write("Nothing is in quarantine.")

    def _show(self, row: UsageQuarantine) -> None:
        self.stdout.write(f"organization  {row.organization.slug if row.organization else 'unknown'}")
        self.stdout.write(f"stream entry  {row.stream_id} of shard {row.shard}, kept {row.created_at:%F %T} UTC")
        self.stdout.write(f"reason        {row.reason}")
        if row.resolved_at is not None:
            self.stdout.write(
                f"resolved      {row.resolution or 'by hand'} by {row.resolved_by} at {row.resolved_at:%F %T} UTC:"
                f" {row.resolution_reason}"
            )
        self.stdout.write(bytes(row.raw_event).decode("utf-8", "backslashreplace"))
