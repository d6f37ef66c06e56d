"""Closed months, and the documents that are written of them: numbered, and never edited."""

import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models

# Documents are written once. A month may still be marked as finished, and a series goes up by one.
GUARDS = """
    CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON billing_document
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON billing_documentline
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER kept BEFORE DELETE ON billing_closedmonth
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_closedmonth FOR EACH ROW
        WHEN (OLD.finished_at IS NOT NULL OR NEW.finished_at IS NULL
              OR ROW(OLD.id, OLD.organization_id, OLD.month, OLD.after_transaction_id, OLD.last_transaction_id,
                  OLD.opening_nanos, OLD.closing_nanos, OLD.closed_at) IS DISTINCT FROM
                 ROW(NEW.id, NEW.organization_id, NEW.month, NEW.after_transaction_id, NEW.last_transaction_id,
                  NEW.opening_nanos, NEW.closing_nanos, NEW.closed_at))
        EXECUTE FUNCTION ledger_refuse_other_terms();
    CREATE TRIGGER kept BEFORE DELETE ON billing_documentseries
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_documentseries FOR EACH ROW
        WHEN (NEW.name <> OLD.name OR NEW.last_number <> OLD.last_number + 1)
        EXECUTE FUNCTION ledger_refuse_other_terms();
""" + "".join(
    f"CREATE TRIGGER never_emptied BEFORE TRUNCATE ON {table} EXECUTE FUNCTION ledger_refuse_truncate();"
    for table in ("billing_document", "billing_documentline", "billing_closedmonth", "billing_documentseries")
)


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_billing_details"),
        ("billing", "0014_refused_requests"),
    ]

    operations = [
        migrations.CreateModel(
            name="DocumentSeries",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("name", models.CharField(max_length=20, unique=True)),
                ("last_number", models.PositiveBigIntegerField(default=0)),
            ],
            options={
                "verbose_name_plural": "document series",
            },
        ),
        migrations.AlterField(
            model_name="ledgeraccount",
            name="kind",
            field=models.CharField(
                choices=[
                    ("prepaid", "Prepaid"),
                    ("promotional", "Promotional"),
                    ("receivable", "Receivable"),
                    ("revenue", "Revenue"),
                    ("cash", "Cash"),
                    ("promotion_expense", "Promotion expense"),
                    ("breakage", "Breakage"),
                    ("orphan_loss", "Orphan loss"),
                    ("upstream_cost", "Upstream cost"),
                    ("tax_owed", "Tax owed"),
                ],
                max_length=20,
            ),
        ),
        migrations.AlterField(
            model_name="ledgertransaction",
            name="kind",
            field=models.CharField(
                choices=[
                    ("usage", "Usage"),
                    ("top_up", "Top-up"),
                    ("promotion", "Promotional credit"),
                    ("adjustment", "Adjustment"),
                    ("expiry", "Expiry"),
                    ("refund", "Refund"),
                    ("rerating", "Re-rating"),
                    ("orphan_loss", "Orphan loss"),
                    ("correction", "Correction"),
                    ("reversal", "Payment reversal"),
                    ("tax", "Tax"),
                ],
                max_length=20,
            ),
        ),
        migrations.CreateModel(
            name="ClosedMonth",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("month", models.CharField(max_length=7)),
                ("after_transaction_id", models.BigIntegerField()),
                ("last_transaction_id", models.BigIntegerField()),
                ("opening_nanos", models.BigIntegerField()),
                ("closing_nanos", models.BigIntegerField()),
                ("closed_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="closed_months",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "ordering": ["organization", "-month"],
            },
        ),
        migrations.CreateModel(
            name="Document",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("invoice", "Invoice"),
                            ("credit_note", "Credit note"),
                            ("payment_receipt", "Payment receipt"),
                        ],
                        max_length=20,
                    ),
                ),
                ("number", models.PositiveBigIntegerField()),
                ("issued_at", models.DateTimeField()),
                ("seller", models.JSONField()),
                ("customer", models.JSONField()),
                ("charges_nanos", models.BigIntegerField()),
                ("promotional_nanos", models.BigIntegerField(default=0)),
                ("net_nanos", models.BigIntegerField()),
                ("tax_rate_ppm", models.PositiveIntegerField(default=0)),
                ("tax_note", models.CharField(blank=True, max_length=200)),
                ("net_cents", models.PositiveBigIntegerField()),
                ("tax_cents", models.PositiveBigIntegerField(default=0)),
                ("gross_cents", models.PositiveBigIntegerField()),
                (
                    "closed_month",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="documents",
                        to="billing.closedmonth",
                    ),
                ),
                (
                    "corrects",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="credit_notes",
                        to="billing.document",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="documents",
                        to="accounts.organization",
                    ),
                ),
                (
                    "payment",
                    models.OneToOneField(
                        help_text="What a receipt is for.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="receipt",
                        to="billing.ledgertransaction",
                    ),
                ),
                (
                    "tax_transaction",
                    models.OneToOneField(
                        help_text="Empty without tax.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="taxed_document",
                        to="billing.ledgertransaction",
                    ),
                ),
            ],
            options={
                "ordering": ["-issued_at", "-id"],
            },
        ),
        migrations.CreateModel(
            name="DocumentLine",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("position", models.PositiveIntegerField()),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("usage", "Usage"),
                            ("rounding", "Minimum charges and rounding"),
                            ("refund", "Refunds"),
                            ("correction", "Corrections"),
                            ("rerating", "Re-rating"),
                            ("adjustment", "Adjustment"),
                            ("promotional", "Promotional credit"),
                            ("payment", "Payment"),
                        ],
                        max_length=12,
                    ),
                ),
                ("description", models.CharField(blank=True, max_length=500)),
                ("model_id", models.CharField(blank=True, max_length=100)),
                ("component", models.CharField(blank=True, max_length=20)),
                ("price_version_id", models.BigIntegerField(null=True)),
                ("prompt_tokens_from", models.PositiveIntegerField(default=0)),
                ("factor_ppm", models.BigIntegerField(null=True)),
                ("picos_per_unit", models.BigIntegerField(null=True)),
                ("quantity", models.BigIntegerField(null=True)),
                (
                    "count",
                    models.BigIntegerField(default=0, help_text="Requests, or transactions where they are no usage."),
                ),
                ("is_late", models.BooleanField(default=False)),
                ("amount_nanos", models.BigIntegerField()),
                (
                    "document",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="lines", to="billing.document"
                    ),
                ),
            ],
            options={
                "ordering": ["document", "position"],
            },
        ),
        migrations.AddConstraint(
            model_name="closedmonth",
            constraint=models.UniqueConstraint(fields=("organization", "month"), name="closed_month_once"),
        ),
        migrations.AddConstraint(
            model_name="closedmonth",
            constraint=models.CheckConstraint(
                condition=models.Q(("last_transaction_id__gte", models.F("after_transaction_id"))),
                name="closed_month_in_order",
            ),
        ),
        migrations.AddIndex(
            model_name="document",
            index=models.Index(fields=["organization", "-issued_at"], name="document_by_organization"),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.UniqueConstraint(fields=("kind", "number"), name="document_number_once"),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.UniqueConstraint(
                condition=models.Q(("closed_month__isnull", False), ("corrects", None)),
                fields=("closed_month",),
                name="document_of_month_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.UniqueConstraint(
                condition=models.Q(("corrects__isnull", False)),
                fields=("closed_month", "corrects"),
                name="credit_note_of_month_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "gross_cents",
                        django.db.models.expressions.CombinedExpression(
                            models.F("net_cents"), "+", models.F("tax_cents")
                        ),
                    )
                ),
                name="document_net_and_tax_are_gross",
            ),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    (
                        "net_nanos",
                        django.db.models.expressions.CombinedExpression(
                            models.F("charges_nanos"), "-", models.F("promotional_nanos")
                        ),
                    ),
                    ("net_nanos__gte", 0),
                ),
                name="document_net_is_what_was_charged",
            ),
        ),
        migrations.AddConstraint(
            model_name="document",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("closed_month", None), ("kind", "payment_receipt"), ("payment__isnull", False)),
                    models.Q(
                        models.Q(("kind", "payment_receipt"), _negated=True),
                        ("closed_month__isnull", False),
                        ("payment", None),
                    ),
                    _connector="OR",
                ),
                name="document_is_of_a_month_or_a_payment",
            ),
        ),
        migrations.AddConstraint(
            model_name="documentline",
            constraint=models.UniqueConstraint(fields=("document", "position"), name="document_line_position_once"),
        ),
        migrations.RunSQL(GUARDS, migrations.RunSQL.noop),
    ]
