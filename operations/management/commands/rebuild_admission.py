"""manage.py rebuild_admission: rebuilds the admission state in Redis from what is there and from Postgres."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing.admission.blocking import rebuild_shard
from billing.admission.errors import AdmissionUnavailableError
from billing.shards import SHARD_COUNT


class Command(BaseCommand):
    help = "Rebuild the admission state of shards. Their organizations get 503 for a few seconds meanwhile."

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group(required=True)
        what.add_argument("--all", action="store_true", help="every shard")
        what.add_argument("--shard", type=int, action="append", help=f"one shard, 0 to {SHARD_COUNT - 1}; repeatable")

    def handle(self, *args: Any, **options: Any) -> None:
        shards = range(SHARD_COUNT) if options["all"] else options["shard"]
        if any(not 0 <= shard < SHARD_COUNT for shard in shards):
            raise CommandError(f"A shard is a number from 0 to {SHARD_COUNT - 1}.")
        try:
            for shard in shards:
                rebuild_shard(shard, force=True)
        except AdmissionUnavailableError as error:
            raise CommandError(str(error)) from error
        self.stdout.write(f"Rebuilt {len(shards)} shards; admission opens within a few seconds.")
