"""Whom a command about privacy is about: an organization, or a person."""

from argparse import ArgumentParser
from collections.abc import Mapping
from typing import Any

from django.core.management.base import CommandError

from accounts.models import Organization, User


def add_subject(parser: ArgumentParser) -> None:
    one = parser.add_mutually_exclusive_group(required=True)
    one.add_argument("--organization", metavar="SLUG")
    one.add_argument("--person", metavar="EMAIL")


def read_subject(options: Mapping[str, Any]) -> tuple[Organization | None, User]:
    """Return the organization, or None and the person. Raises CommandError."""
    if options["organization"]:
        organization = Organization.objects.filter(slug=options["organization"]).first()
        if organization is None:
            raise CommandError(f"There is no organization {options['organization']}.")
        return organization, User()
    person = User.objects.filter(email__iexact=options["person"] or "").first()
    if person is None:
        raise CommandError(f"Nobody signs in as {options['person']}.")
    return None, person
