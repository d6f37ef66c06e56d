"""manage.py revoke_key PREFIX: whose key it is, and with --yes, kill it everywhere and tell its people."""

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from accounts.models import ApiKey
from operations.leaks import find_by_prefix, find_by_text, revoke_leaked
from operations.management.arguments import add_actor, named_actor, text_of
from operations.management.publishing import publish_or_say

STANDARD_INPUT = "-"
MAX_PREFIX_CHARS = 40


class Command(BaseCommand):
    help = "Says whose key has this prefix, and whether it lives; with --yes it is revoked as leaked, with mail."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "prefix",
            metavar="PREFIX",
            type=text_of(MAX_PREFIX_CHARS),
            help="cm- and eight characters; '-' reads a whole key from standard input, so that no shell remembers it.",
        )
        parser.add_argument("--place", type=text_of(300), default="", help="Where it was found; its people are told.")
        parser.add_argument("--yes", action="store_true", help="Revoke it. Without this, nothing is changed.")
        add_actor(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        for key in self._find(options["prefix"]):
            state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M} UTC" if key.revoked_at else "live"
            self.stdout.write(f"{key.prefix}…{key.last_four}: {state}, of {key.organization.slug}")
            if not options["yes"]:
                continue
            named_actor(options)
            leak = revoke_leaked(key, place=options["place"], revoked_by=None)
            self.stdout.write("Revoked; its people get mail." if leak.is_new else "It was revoked before.")
        if options["yes"]:
            publish_or_say(self.stdout, "the revocation")

    def _find(self, prefix: str) -> list[ApiKey]:
        if prefix == STANDARD_INPUT:
            key = find_by_text(sys.stdin.readline().strip())
            keys = [key] if key else []
        else:
            keys = find_by_prefix(prefix)
        if not keys:
            raise CommandError("That is no key of ours.")
        return keys
