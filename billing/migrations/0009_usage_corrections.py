"""The truth about orphans: one immutable row beside the record of each that was corrected."""

from django.db import migrations, models

COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_read_tokens",
    "images",
    "web_searches",
    "cost_before_nanos",
    "cost_after_nanos",
    "upstream_cost_before_nanos",
    "upstream_cost_after_nanos",
)
GUARDS = """
    CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON billing_usagecorrection
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_usagecorrection EXECUTE FUNCTION ledger_refuse_truncate();
"""
KINDS = [
    ("usage", "Usage"),
    ("top_up", "Top-up"),
    ("promotion", "Promotional credit"),
    ("adjustment", "Adjustment"),
    ("expiry", "Expiry"),
    ("refund", "Refund"),
    ("rerating", "Re-rating"),
    ("orphan_loss", "Orphan loss"),
    ("correction", "Correction"),
]


class Migration(migrations.Migration):
    dependencies = [("billing", "0008_expansion_tokens_and_bounded_usage")]

    operations = [
        migrations.CreateModel(
            name="UsageCorrection",
            fields=[
                ("request_id", models.UUIDField(primary_key=True, serialize=False)),
                ("organization_id", models.BigIntegerField()),
                ("outcome", models.CharField(choices=[("billed", "Billed"), ("failed", "Failed")], max_length=10)),
                ("usage_source", models.CharField(max_length=10)),
                *((name, models.BigIntegerField()) for name in COUNTS),
                ("attempts", models.JSONField(default=list)),
                (
                    "ledger_transaction_id",
                    models.BigIntegerField(help_text="Empty when the cost stayed the same.", null=True),
                ),
                ("settled_at", models.DateTimeField()),
            ],
            options={
                "ordering": ["-request_id"],
                "indexes": [
                    models.Index(fields=["ledger_transaction_id"], name="correction_by_transaction"),
                    models.Index(fields=["organization_id", "-request_id"], name="correction_by_organization"),
                ],
            },
        ),
        migrations.RunSQL(GUARDS, migrations.RunSQL.noop),
        migrations.AlterField(
            model_name="ledgertransaction", name="kind", field=models.CharField(choices=KINDS, max_length=20)
        ),
    ]
