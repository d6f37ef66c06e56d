"""manage.py status: how far settlement is behind, and what waits for an operator."""

import time
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from accounts.models import AdmissionChange
from billing.admission.errors import AdmissionUnavailableError
from billing.admission.worker import oldest_waiting_ms, pulse_shards, read_upstream_news
from billing.models import UsageQuarantine

LAG_TO_WORRY_SECONDS = 60
WHAT_UPSTREAMS_DO = {
    "breaker": "cannot be reached and is left alone",
    "suspected": "fails several organizations",
    "account": "refuses calls for the state of our account there",
}


class Command(BaseCommand):
    help = "Show settlement lag, holds, changes, quarantine and upstreams. Exits with 1 when a person should look."

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            shards = pulse_shards()
            oldest_ms = oldest_waiting_ms([shard.shard for shard in shards if shard.waiting_events])
            news = read_upstream_news()
            changes = AdmissionChange.objects.count()
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
        for item in news:
            what = WHAT_UPSTREAMS_DO.get(item.subject, f"refuses {item.subject}, which is suspended")
            self.stdout.write(f"upstream {item.upstream:<12} {what}, {item.lasts_ms / 1000:.0f} s more")
        if lag > LAG_TO_WORRY_SECONDS or quarantined or news:
            raise SystemExit(1)
