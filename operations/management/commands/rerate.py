"""manage.py rerate: what a past window would have cost by a corrected price, and posting the difference."""

import uuid
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.approvals.reratings import line_of, moved_nanos, rerating_terms
from billing.catalog.load import describe_version
from billing.corrections.rerating import Difference, ReratingError, ReratingPlan, plan_rerating
from billing.models import Approval, LanguageModel, PriceVersion
from operations.management.arguments import MAX_REASON_CHARS, read_day, text_of
from operations.management.asking import add_asking, ask_as_operator, operator_account
from operations.reratings import post_at_once


class Command(BaseCommand):
    help = "Shows the difference per organization; --apply posts it, or lets it wait. UTC days; --to is not included."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", required=True, help="Id of the language model.")
        parser.add_argument("--from", dest="begins", type=read_day, required=True, metavar="YYYY-MM-DD")
        parser.add_argument("--to", dest="ends", type=read_day, required=True, metavar="YYYY-MM-DD")
        parser.add_argument("--price-version", type=int, required=True, help="The approved price to apply instead.")
        parser.add_argument("--apply", action="store_true", help="Post the differences to the ledger.")
        add_asking(parser)
        parser.add_argument(
            "--reason",
            type=text_of(MAX_REASON_CHARS),
            default="",
            help="Why, as the organization will read it; needed with --apply.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        language_model = LanguageModel.objects.filter(model_id=options["model"]).first()
        if language_model is None:
            raise CommandError(f"No language model has the id {options['model']!r}.")
        version = PriceVersion.objects.filter(pk=options["price_version"]).select_related("upstream").first()
        if version is None:
            raise CommandError(f"No price version has the number {options['price_version']}.")
        plan = ReratingPlan(language_model, version, options["begins"], options["ends"])
        try:
            differences = plan_rerating(plan)
        except ReratingError as error:
            raise CommandError(str(error)) from None
        if options["apply"] and not self._apply(options, plan, differences):
            return
        self.stdout.write(f"By price version {version.pk}: {describe_version(version)}")
        for difference in differences:
            self.stdout.write(line_of(difference))
        if not differences:
            self.stdout.write("No difference.")
        elif not options["apply"]:
            self.stdout.write("Nothing was posted. --apply posts it.")

    def _apply(self, options: Mapping[str, Any], plan: ReratingPlan, differences: Sequence[Difference]) -> bool:
        """Post the differences, and say whether there is nothing left to do; False when they wait, or were declined."""
        operator_account(options)
        if not differences:
            return True
        asked = ask_as_operator(
            self,
            options,
            Approval.Kind.RERATING,
            organization=None,
            terms=rerating_terms(plan, differences),
            amount_nanos=moved_nanos(differences),
            idempotency_key=f"rerating:{uuid.uuid4()}",
            unchanged="Nothing was posted.",
        )
        if asked is None:
            return False
        post_at_once(asked.approval)
        if asked.approval.state != Approval.State.APPLIED:
            raise CommandError(f"{asked.approval.decision} Nothing was posted.")
        return True
