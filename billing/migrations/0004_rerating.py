"""Re-ratings and what they changed; the rows are as immutable as the usage that they correct."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

IMMUTABLE = "".join(
    f"CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();"
    for table in ("billing_rerating", "billing_reratedrequest")
)


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0003_catalog_version_and_price_guards"),
    ]

    operations = [
        migrations.CreateModel(
            name="Rerating",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("begins", models.DateTimeField()),
                ("ends", models.DateTimeField()),
                ("actor", models.CharField(max_length=254)),
                ("reason", models.CharField(max_length=500)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "language_model",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="reratings",
                        to="billing.languagemodel",
                    ),
                ),
                (
                    "price_version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="reratings",
                        to="billing.priceversion",
                    ),
                ),
            ],
            options={"ordering": ["-id"]},
        ),
        migrations.CreateModel(
            name="ReratedRequest",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("request_id", models.UUIDField()),
                ("organization_id", models.BigIntegerField()),
                ("cost_before_nanos", models.BigIntegerField()),
                ("cost_after_nanos", models.BigIntegerField()),
                ("ledger_transaction_id", models.BigIntegerField()),
                (
                    "rerating",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="requests", to="billing.rerating"
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
                "indexes": [
                    models.Index(fields=["request_id", "-id"], name="rerated_by_request"),
                    models.Index(fields=["ledger_transaction_id"], name="rerated_by_transaction"),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("rerating", "request_id"), name="rerated_once_in_a_run"),
                ],
            },
        ),
        migrations.RunSQL(IMMUTABLE, migrations.RunSQL.noop),
    ]
