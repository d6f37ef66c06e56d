"""manage.py status: how far settlement is behind, and what waits for an operator."""

import time
from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from accounts.models import AdmissionChange
from billing.admission.durability import find_shortcomings
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.worker import oldest_waiting_ms, pulse_shards, read_upstream_news
from billing.models import UsageQuarantine
from billing.partitions import missing_partitions

LAG_TO_WORRY_SECONDS = 60
WHAT_UPSTREAMS_DO = {
    "breaker": "cannot be reached and is left alone",
    "suspected": "fails several organizations",
    "account": "refuses calls for the state of our account there",
}


def count_rejected_lines() -> int:
    """Return how many lines of the spools in this machine's data folder were no usage events and await a person."""
    files = (settings.DATA_DIR / "spool").glob("*.rejected")
    return sum(path.read_bytes().count(b"\n") for path in files)


class Command(BaseCommand):
    help = "Show settlement lag, holds, changes, quarantine and upstreams. Exits with 1 when a person should look."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            shards = pulse_shards()
            oldest_ms = oldest_waiting_ms([shard.shard for shard in shards if shard.waiting_events])
            news = read_upstream_news()
            changes = AdmissionChange.objects.count()
            shortcomings = find_shortcomings()
            missing = missing_partitions(now=datetime.now(UTC))
            quarantined = UsageQuarantine.objects.filter(resolved_at=None).count()
        except AdmissionUnavailableError as error:
            raise CommandError(str(error)) from error
        except DatabaseError as error:
            raise CommandError(f"Postgres cannot be used: {error}") from error
        lag = max(0.0, time.time() - oldest_ms / 1000) if oldest_ms else 0.0
        self.stdout.write(f"events waiting       {sum(shard.waiting_events for shard in shards)}")
        self.stdout.write(f"settlement lag       {lag:.1f} s")
        self.stdout.write(f"holds in flight      {sum(shard.holds_in_flight for shard in shards)}")
        self.stdout.write(f"unpublished changes  {changes}")
        self.stdout.write(f"in quarantine        {quarantined}")
        rejected = count_rejected_lines()
        self.stdout.write(f"lines set aside      {rejected}")
        for shortcoming in shortcomings:
            self.stdout.write(shortcoming.text)
        for name in missing:
            self.stdout.write(f"partition missing    {name}")
        for item in news:
            what = WHAT_UPSTREAMS_DO.get(item.subject, f"refuses {item.subject}, which is suspended")
            self.stdout.write(f"upstream {item.upstream:<12} {what}, {item.lasts_ms / 1000:.0f} s more")
        if (
            lag > LAG_TO_WORRY_SECONDS
            or quarantined
            or news
            or rejected
            or missing
            or any(item.loses_money for item in shortcomings)
        ):
            raise SystemExit(1)
