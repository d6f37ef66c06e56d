"""manage.py rerate: what a past window would have cost by a corrected price, and posting the difference."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.catalog.load import describe_version
from billing.management.arguments import MAX_REASON_CHARS, add_actor, named_actor, read_day, text_of
from billing.models import LanguageModel, PriceVersion
from billing.money import format_usd
from billing.rerating import ReratingError, ReratingPlan, apply_rerating, plan_rerating


class Command(BaseCommand):
    help = "Shows the difference per organization; --apply posts it. Days are UTC; --to is not included."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--model", required=True, help="Id of the language model.")
        parser.add_argument("--from", dest="begins", type=read_day, required=True, metavar="YYYY-MM-DD")
        parser.add_argument("--to", dest="ends", type=read_day, required=True, metavar="YYYY-MM-DD")
        parser.add_argument("--price-version", type=int, required=True, help="The approved price to apply instead.")
        parser.add_argument("--apply", action="store_true", help="Post the differences to the ledger.")
        add_actor(parser, "Who does it; needed with --apply.")
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
            if options["apply"]:
                differences = apply_rerating(plan, actor=named_actor(options), reason=options["reason"])
            else:
                differences = plan_rerating(plan)
        except ReratingError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"By price version {version.pk}: {describe_version(version)}")
        for difference in differences:
            self.stdout.write(
                f"{difference.organization.slug}: {difference.requests} requests,"
                f" {format_usd(difference.before_nanos)} -> {format_usd(difference.after_nanos)},"
                f" difference {format_usd(difference.difference_nanos)}"
            )
        if not differences:
            self.stdout.write("No difference.")
        elif not options["apply"]:
            self.stdout.write("Nothing was posted. --apply posts it.")
