"""manage.py status: how far settlement is behind, and what waits for an operator."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from operations.status import read_status

NEEDS_A_PERSON = 1
FIELDS = ("name", "says", "value", "needs_a_person", "runbook")


class Command(BaseCommand):
    help = "Show the state of CrossModel, a line for each check. Exits with 1 when a line has '!': look at it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="print JSON, for programs")

    def handle(self, *args: Any, **options: Any) -> None:
        lines = read_status()
        is_well = not any(line.needs_a_person for line in lines)
        if options["json"]:
            checks = [{name: getattr(line, name) for name in FIELDS} for line in lines]
            self.stdout.write(json.dumps({"is_well": is_well, "checks": checks}, indent=2))
        else:
            for line in lines:
                self.stdout.write(f"{'!' if line.needs_a_person else ' '} {line.name}: {line.says}")
        if not is_well:
            raise SystemExit(NEEDS_A_PERSON)
