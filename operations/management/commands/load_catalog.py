"""manage.py load_catalog FILE: bring models, routes and prices in line with a catalog file."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from billing.catalog.file import InvalidCatalogError, parse_catalog
from billing.catalog.load import load_catalog
from billing.catalog.price_versions import ApprovalError
from billing.catalog.profiles import profile_problem
from operations.management.arguments import add_actor, named_actor, named_operator

LOCAL_ACTOR = "local default"


class Command(BaseCommand):
    help = "Loads upstreams, language models, routes and prices from a TOML file. New prices are drafts until approved."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", default=settings.CATALOG_FILE, help="Default: CROSSMODEL_CATALOG.")
        parser.add_argument(
            "--approve",
            action="store_true",
            help="Approve the file's prices too, as --actor; in production only first prices.",
        )
        parser.add_argument(
            "--keep-other-files",
            action="store_true",
            help="Leave on sale what other catalog files named; what was entered in the admin stays in any case.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Print what would change; change nothing.")
        add_actor(parser, "Who loads it, for the record.")

    def handle(self, *args: Any, **options: Any) -> None:
        actor = named_actor(options)
        if settings.PRODUCTION and not actor and not options["dry_run"]:
            raise CommandError("--actor EMAIL is missing: in production a person must answer for a price.")
        path = Path(options["file"])
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{path} cannot be read: {error}") from None
        try:
            changes = load_catalog(
                parse_catalog(text, file_name=path.name, check_profile=profile_problem),
                actor=actor or LOCAL_ACTOR,
                account=named_operator(options),
                approve=options["approve"],
                may_replace_alone=not settings.PRODUCTION,
                keeps_other_files=options["keep_other_files"],
                dry_run=options["dry_run"],
            )
        except InvalidCatalogError as error:
            raise CommandError("\n".join([*error.errors, f"{path} was not loaded."])) from None
        except ApprovalError as error:
            raise CommandError(f"{error} Nothing was loaded.") from None
        for line in changes.lines:
            self.stdout.write(line)
        if not changes:
            self.stdout.write("Nothing to change.")
        elif options["dry_run"]:
            self.stdout.write("Dry run: nothing was changed.")
        if changes.drafts and not options["approve"]:
            self.stdout.write(f"{_count(len(changes.drafts))} for approval: manage.py approve_prices")


def _count(drafts: int) -> str:
    return "1 price waits" if drafts == 1 else f"{drafts:,} prices wait"
