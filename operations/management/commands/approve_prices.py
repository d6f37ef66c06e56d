"""manage.py approve_prices: list drafted prices, and make them live as a second person."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.catalog.load import describe_version
from billing.catalog.price_versions import ApprovalError, approve_price_versions, drafts_that_wait
from billing.pricing.cost import InvalidPriceError
from operations.management.arguments import add_actor, named_actor, named_operator


class Command(BaseCommand):
    help = "Lists drafted prices; approves those that are named. Whoever drafted a price cannot approve it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("ids", nargs="*", type=int, help="Numbers of drafts, as listed.")
        parser.add_argument("--all", action="store_true", help="Approve every draft.")
        add_actor(parser, "Who approves.")

    def handle(self, *args: Any, **options: Any) -> None:
        drafts = drafts_that_wait().select_related("language_model", "upstream")
        drafts = drafts.prefetch_related("components").order_by("pk")
        if not options["ids"] and not options["all"]:
            for draft in drafts:
                self.stdout.write(f"{draft.pk}: {describe_version(draft)} (drafted by {draft.created_by})")
            if not drafts:
                self.stdout.write("No price waits for approval.")
            return
        approver = named_actor(options)
        if not approver:
            raise CommandError("--actor EMAIL is missing: an approval must name a person.")
        chosen = [draft for draft in drafts if options["all"] or draft.pk in options["ids"]]
        unknown = set(options["ids"]) - {draft.pk for draft in chosen}
        if unknown:
            raise CommandError(f"No draft has the number {', '.join(map(str, sorted(unknown)))}.")
        try:
            approved = approve_price_versions(chosen, approved_by=approver, decided_by=named_operator(options))
        except (ApprovalError, InvalidPriceError) as error:
            raise CommandError(f"{error} Nothing was approved.") from None
        for version in approved:
            self.stdout.write(f"approved {version.pk}: {describe_version(version)}")
