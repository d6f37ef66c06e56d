"""Months that were proven, and the indexes by which one month of the books is read. Made beside running settlement.

A partitioned table's index cannot be made concurrently: each partition gets its own first, and they are joined then.
"""

from typing import Any

import django.db.models.deletion
import django.utils.timezone
from django.contrib.postgres.indexes import BrinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

FREE = "(settled_at) WHERE ledger_transaction_id IS NULL"
ADMISSION = "USING brin (admitted_at timestamptz_minmax_multi_ops)"
GUARDS = """
    CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON billing_provenmonth
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_provenmonth EXECUTE FUNCTION ledger_refuse_truncate();
"""
SOURCES = [
    ("admission", "Redis against Postgres"),
    ("roll_ups", "Roll-ups against records"),
    ("provider_usage", "Records against the provider's usage"),
    ("provider_cost", "Records against the provider's cost"),
    ("payments", "Payments against the provider's list"),
    ("ledger", "The ledger against itself"),
]


def index_partitions(apps: Any, schema_editor: Any) -> None:
    with schema_editor.connection.cursor() as cursor:
        for index, definition in (("usage_free_by_settlement", FREE), ("usage_by_admission", ADMISSION)):
            cursor.execute(f"CREATE INDEX IF NOT EXISTS {index} ON ONLY billing_usagerecord {definition}")
            cursor.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'billing_usagerecord'::regclass"
            )
            for (partition,) in cursor.fetchall():
                name = f"{partition}_{index.removeprefix('usage_')}"
                cursor.execute(f"CREATE INDEX CONCURRENTLY IF NOT EXISTS {name} ON {partition} {definition}")
                cursor.execute(f"ALTER INDEX {index} ATTACH PARTITION {name}")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0032_reratings_are_posted_by_a_job")]

    operations = [
        migrations.CreateModel(
            name="ProvenMonth",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("month", models.CharField(max_length=7, unique=True)),
                ("after_transaction_id", models.BigIntegerField(null=True)),
                ("last_transaction_id", models.BigIntegerField()),
                ("begins", models.DateTimeField(null=True)),
                ("ends", models.DateTimeField()),
                ("form", models.PositiveSmallIntegerField()),
                ("digests", models.JSONField()),
                ("sha256", models.CharField(max_length=64)),
                ("proven_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={"ordering": ["month"]},
        ),
        migrations.RunSQL(GUARDS, migrations.RunSQL.noop),
        *(
            migrations.AlterField(
                model_name=model, name="source", field=models.CharField(choices=SOURCES, max_length=20)
            )
            for model in ("reconciliationbreak", "reconciliationrun")
        ),
        *(
            AddIndexConcurrently(model, BrinIndex(fields=[column], opclasses=[f"{kind}_minmax_multi_ops"], name=name))
            for model, column, kind, name in (
                ("usagehour", "hour", "timestamptz", "usage_hour_by_hour"),
                ("usageday", "day", "date", "usage_day_by_day"),
                ("attributedday", "day", "date", "attributed_day_by_day"),
                ("budgetday", "admitted_day", "int4", "budget_day_by_month"),
            )
        ),
        AddIndexConcurrently("creditlotentry", models.Index(fields=["lot", "id"], name="lot_entry_by_lot")),
        # Its index by lot alone is no longer needed.
        migrations.AlterField(
            model_name="creditlotentry",
            name="lot",
            field=models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="entries",
                to="billing.creditlot",
            ),
        ),
        migrations.SeparateDatabaseAndState(
            database_operations=[migrations.RunPython(index_partitions, migrations.RunPython.noop)],
            state_operations=[
                migrations.AddIndex(
                    "usagerecord",
                    models.Index(
                        fields=["settled_at"],
                        condition=models.Q(("ledger_transaction_id", None)),
                        name="usage_free_by_settlement",
                    ),
                ),
                migrations.AddIndex(
                    "usagerecord",
                    BrinIndex(
                        fields=["admitted_at"], opclasses=["timestamptz_minmax_multi_ops"], name="usage_by_admission"
                    ),
                ),
            ],
        ),
    ]
