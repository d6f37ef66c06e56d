"""Indexes by which a page of one key, and the credit of one organization, is read. Made beside running settlement.

A partitioned table's index cannot be made concurrently: each partition gets its own first, and they are joined then.
"""

from typing import Any

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

USAGE_BY_KEY = models.Index(fields=["organization_id", "key_id", "-request_id"], name="usage_by_key")
COLUMNS = "(organization_id, key_id, request_id DESC)"


def index_partitions(apps: Any, schema_editor: Any) -> None:
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(f"CREATE INDEX IF NOT EXISTS usage_by_key ON ONLY billing_usagerecord {COLUMNS}")
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'billing_usagerecord'::regclass"
        )
        for (partition,) in cursor.fetchall():
            name = f"{partition}_by_key"
            cursor.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {partition} {COLUMNS}")
            cursor.execute(f"ALTER INDEX usage_by_key ATTACH PARTITION {name}")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0019_audit")]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(index_partitions, migrations.RunPython.noop)],
            state_operations=[migrations.AddIndex("usagerecord", USAGE_BY_KEY)],
        ),
        AddIndexConcurrently(
            "failedrequest",
            models.Index(fields=["organization_id", "key_id", "-request_id"], name="failed_by_key"),
        ),
        AddIndexConcurrently(
            "refusedrequest",
            models.Index(fields=["organization_id", "key_id", "-request_id"], name="refused_by_key"),
        ),
        AddIndexConcurrently("webhookdelivery", models.Index(fields=["event_id"], name="webhook_delivery_by_event")),
        AddIndexConcurrently(
            "ledgertransaction",
            models.Index(
                condition=models.Q(("kind", "usage"), _negated=True),
                fields=["organization", "-id"],
                name="credit_transaction_by_org",
            ),
        ),
        AddIndexConcurrently(
            "ledgertransaction",
            models.Index(
                condition=models.Q(("kind", "usage"), _negated=True),
                fields=["kind", "-id"],
                name="credit_transaction_by_kind",
            ),
        ),
    ]
