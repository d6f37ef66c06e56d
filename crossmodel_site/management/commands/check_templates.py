"""manage.py check_templates: compile every template, and find names in them of what does not exist."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from crossmodel_site.template_check import check_templates


class Command(BaseCommand):
    help = "Compiles every template, and checks the templates, URLs and static files that they name."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        mistakes = check_templates()
        if mistakes:
            raise CommandError("\n".join(mistakes))
        self.stdout.write("The templates are in order.")
