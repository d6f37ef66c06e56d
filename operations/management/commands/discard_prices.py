"""manage.py discard_prices ID...: give drafted prices up, with a reason; they are kept and never approved."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import transaction

from billing.catalog.load import describe_version
from billing.catalog.price_versions import ApprovalError, discard_price_version, drafts_that_wait
from operations.management.arguments import MAX_REASON_CHARS, add_actor, named_operator, text_of


class Command(BaseCommand):
    help = "Discards drafted prices, all that are named or none; manage.py approve_prices lists drafts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("ids", nargs="+", type=int, metavar="ID", help="Numbers of drafts, as listed.")
        parser.add_argument("--reason", type=text_of(MAX_REASON_CHARS), required=True, help="Why, for the record.")
        add_actor(parser, "Who discards them.")

    def handle(self, *args: Any, **options: Any) -> None:
        operator = named_operator(options)
        if operator is None:
            raise CommandError("--actor EMAIL is missing: whoever discards a draft names their account.")
        drafts = drafts_that_wait().filter(pk__in=options["ids"]).select_related("language_model", "upstream")
        drafts = drafts.prefetch_related("components").order_by("pk")
        unknown = set(options["ids"]) - {draft.pk for draft in drafts}
        if unknown:
            raise CommandError(f"No draft has the number {', '.join(map(str, sorted(unknown)))}.")
        try:
            with transaction.atomic():
                for draft in drafts:
                    discard_price_version(draft, by=operator, reason=options["reason"])
        except ApprovalError as error:
            raise CommandError(f"{error} Nothing was discarded.") from None
        for draft in drafts:
            self.stdout.write(f"discarded {draft.pk}: {describe_version(draft)}")
