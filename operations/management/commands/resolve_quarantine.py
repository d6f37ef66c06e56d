"""manage.py resolve_quarantine: list quarantined events, settle one after a fix, or give one up."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.models import UsageQuarantine
from billing.settlement.quarantine_resolution import ResolutionError, discard_quarantined, settle_quarantined
from operations.management.arguments import MAX_REASON_CHARS, named_actor, text_of
from operations.management.asking import add_asking, confirm, operator_account
from operations.management.publishing import publish_or_say

MAX_ROWS_LISTED = 100


class Command(BaseCommand):
    help = "Lists what is in quarantine. With an ID it shows that event, settles it, or discards it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("id", nargs="?", type=int, metavar="ID", help="Number of the event, as listed.")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--settle", action="store_true", help="Settle it again, after its fault was repaired.")
        how.add_argument("--discard", action="store_true", help="Discard it: nobody is ever charged for it.")
        parser.add_argument(
            "--reason",
            type=text_of(MAX_REASON_CHARS),
            default="",
            help="Why, for the record; needed to settle and to discard.",
        )
        add_asking(parser)

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
        actor = operator_account(options)
        if not actor.has_perm("billing.change_usagequarantine"):
            raise CommandError(f"The role of {actor} does not permit to resolve what is in quarantine.")
        what = "charge what it says" if options["settle"] else "charge nobody for it, for ever"
        if not confirm(self, options, [f"Event {row.pk} of {row.organization or 'no organization'}: {what}."]):
            return
        resolve = settle_quarantined if options["settle"] else discard_quarantined
        try:
            resolve(row, actor=named_actor(options), reason=options["reason"])
        except ResolutionError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"Event {row.pk} is {'settled' if options['settle'] else 'discarded'}.")
        publish_or_say(self.stdout, "the change")

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
