"""Lets the expiry of lots and the building of shards lie in the past, which nobody else can."""

from datetime import timedelta

from django.conf import settings
from django.db import connection
from django.utils import timezone

from billing.admission.blocking import standing_epoch
from billing.admission.redis.blocking_client import redis_client
from billing.admission.redis_keys import SHARDS


def age_lots(ago: timedelta) -> None:
    """Make every lot that expires have expired that long ago."""
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "UPDATE billing_creditlot SET expires_at = %s WHERE expires_at IS NOT NULL", [timezone.now() - ago]
        )
        cursor.execute("SET LOCAL session_replication_role = origin")


def age_shard(shard: int) -> None:
    """Let a shard be open, and have stood for longer than a lease."""
    run_id, _, built_micros = standing_epoch(shard).partition(":")
    lease_micros = int(settings.ADMISSION.lease_seconds * 1_000_000) + 1_000_000
    redis_client().delete(SHARDS[shard].opens)
    redis_client().set(SHARDS[shard].epoch, f"{run_id}:{int(built_micros) - lease_micros}")
