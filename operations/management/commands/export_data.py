"""manage.py export_data: everything that is kept of an organization, or of a person, as lines of JSON."""

import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand
from django.db import transaction

from billing.privacy.export import export_organization, export_person
from operations.management.subjects import add_subject, read_subject


class Command(BaseCommand):
    help = "Writes what is kept of an organization or a person, without secrets, a row a line."

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_subject(parser)
        parser.add_argument("--out", metavar="FILE", type=Path, help="Where to. Default: standard output.")

    def handle(self, *args: Any, **options: Any) -> None:
        organization, person = read_subject(options)
        count = 0
        out = options["out"].open("w", encoding="utf-8") if options["out"] else self.stdout
        try:
            with transaction.atomic():  # Rows are read through a cursor of Postgres', and agree with each other.
                lines = export_organization(organization) if organization else export_person(person)
                for line in lines:
                    out.write(line + "\n" if options["out"] else line)
                    count += 1
        finally:
            if options["out"]:
                out.close()
        sys.stderr.write(f"{count:,} rows\n")
