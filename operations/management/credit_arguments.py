"""The arguments of commands that give or correct credit. A wrong one ends in one line, before anything is posted."""

from argparse import ArgumentParser
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import CommandError
from django.utils.dateparse import parse_datetime

from accounts.models import Organization
from accounts.organizations import find_organization as find_by_slug
from billing.models import CreditLot
from operations.management.arguments import MAX_REASON_CHARS, text_of

MAX_PRIORITY = 32_767


def add_credit_arguments(parser: ArgumentParser, *, amount: str, reason: str, kind: str) -> None:
    """Add ORG, AMOUNT, `--reason` and `--kind`, with these helps."""
    parser.add_argument("organization", metavar="ORG", help="Slug or id of the organization.")
    parser.add_argument("amount", metavar="AMOUNT", help=amount)
    parser.add_argument("--reason", type=text_of(MAX_REASON_CHARS), required=True, help=reason)
    parser.add_argument("--kind", choices=CreditLot.Kind.values, default=CreditLot.Kind.PROMOTIONAL.value, help=kind)


def require_reason(options: Mapping[str, Any], what: str) -> None:
    """Raise CommandError when `--reason` says nothing; `what` is what must say why."""
    if not options["reason"].strip():
        raise CommandError(f"--reason is empty: {what} says why.")


def find_organization(text: str) -> Organization:
    """Return the organization with this slug or, failing that, this id. Raises CommandError."""
    organization = find_by_slug(text)
    if organization is None and text.isascii() and text.isdigit() and len(text) < 19:
        organization = Organization.objects.filter(pk=int(text)).first()
    if organization is None:
        raise CommandError(f"No organization has the slug or id {text!r}.")
    return organization


def parse_expiry(text: str | None) -> datetime | None:
    """Return the moment in `text`, midnight UTC for a date. Raises CommandError."""
    if text is None:
        return None
    try:
        moment = parse_datetime(text if "T" in text or " " in text else f"{text}T00:00")
    except ValueError as error:
        raise CommandError(f"--expires {text!r}: {error}") from None
    if moment is None:
        raise CommandError(f"--expires {text!r} is not a date such as 2027-12-31.")
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
