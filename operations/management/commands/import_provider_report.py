"""manage.py import_provider_report: keep what a provider reports, from files."""

import json
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.models import ProviderReport, Upstream
from billing.reconciliation.imports import store_report
from billing.reconciliation.provider_reports import InvalidReportError, read_report

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_FILES = 1_000


class Command(BaseCommand):
    help = "Keeps a report of usage or cost, in the shape of Anthropic's Admin API; the files are its pages, in order."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
        parser.add_argument("--upstream", required=True, metavar="NAME", help="Whose report it is, as in the catalog.")
        parser.add_argument("--kind", required=True, choices=ProviderReport.Kind.values)

    def handle(self, *args: Any, **options: Any) -> None:
        upstream, files = options["upstream"], options["files"]
        if not Upstream.objects.filter(name=upstream).exists():
            raise CommandError(f"There is no upstream {upstream}.")
        if len(files) > MAX_FILES:
            raise CommandError(f"At most {MAX_FILES} files make a report.")
        try:
            days = read_report(options["kind"], _read(files))
        except InvalidReportError as error:
            raise CommandError(str(error)) from None
        stored = store_report(options["kind"], upstream, days, origin=", ".join(path.name for path in files))
        for day in sorted(days):
            self.stdout.write(f"{day}: {'kept' if day in stored else 'not over yet, left out'}")


def _read(files: Iterable[Path]) -> Iterator[Any]:
    for path in files:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise CommandError(f"{path} is larger than {MAX_FILE_BYTES} bytes.")
            yield json.loads(path.read_bytes())
        except OSError as error:
            raise CommandError(f"{path} cannot be read: {error.strerror}.") from None
        except ValueError:
            raise CommandError(f"{path} holds no JSON.") from None
