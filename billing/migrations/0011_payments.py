"""Payments: orders of credit, movements of money at providers, and what was taken back. Only new tables."""

import uuid

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

GUARDS = """
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_topup FOR EACH ROW
        WHEN (ROW(OLD.id, OLD.organization_id, OLD.reference, OLD.amount_nanos, OLD.currency, OLD.provider, OLD.origin,
                  OLD.idempotency_key, OLD.created_by, OLD.created_at) IS DISTINCT FROM
              ROW(NEW.id, NEW.organization_id, NEW.reference, NEW.amount_nanos, NEW.currency, NEW.provider, NEW.origin,
                  NEW.idempotency_key, NEW.created_by, NEW.created_at)
              -- What was credited stays credited, and with the same transaction.
              OR (OLD.ledger_transaction_id IS NOT NULL
                  AND OLD.ledger_transaction_id IS DISTINCT FROM NEW.ledger_transaction_id))
        EXECUTE FUNCTION ledger_refuse_other_terms();
    CREATE TRIGGER kept BEFORE DELETE ON billing_topup FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_topup EXECUTE FUNCTION ledger_refuse_truncate();
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_paymentmovement FOR EACH ROW
        WHEN (OLD.top_up_id IS NOT NULL OR
              ROW(OLD.id, OLD.provider, OLD.kind, OLD.reference, OLD.payment_id, OLD.charge_id, OLD.amount_nanos,
                  OLD.occurred_at, OLD.recorded_at) IS DISTINCT FROM
              ROW(NEW.id, NEW.provider, NEW.kind, NEW.reference, NEW.payment_id, NEW.charge_id, NEW.amount_nanos,
                  NEW.occurred_at, NEW.recorded_at))
        EXECUTE FUNCTION ledger_refuse_other_terms();
    CREATE TRIGGER kept BEFORE DELETE ON billing_paymentmovement FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_paymentmovement EXECUTE FUNCTION ledger_refuse_truncate();
    CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON billing_paymentreversal
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_paymentreversal EXECUTE FUNCTION ledger_refuse_truncate();
    CREATE TRIGGER kept BEFORE DELETE ON billing_paymentbreak FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_invitations"),
        ("billing", "0010_words_of_the_glossary"),
    ]

    operations = [
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
                ],
                max_length=20,
            ),
        ),
        migrations.CreateModel(
            name="TopUp",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "reference",
                    models.UUIDField(
                        default=uuid.uuid4,
                        editable=False,
                        help_text="What the payment provider knows the order by.",
                        unique=True,
                    ),
                ),
                (
                    "amount_nanos",
                    models.PositiveBigIntegerField(help_text="What is credited once it is paid, in nano-dollars."),
                ),
                ("currency", models.CharField(choices=[("USD", "USD")], default="USD", max_length=3)),
                ("provider", models.CharField(max_length=30)),
                (
                    "origin",
                    models.CharField(
                        choices=[("console", "Console"), ("automatic", "Automatic")], default="console", max_length=10
                    ),
                ),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("paid", "Paid"),
                            ("failed", "Failed"),
                            ("refunded", "Refunded"),
                        ],
                        default="pending",
                        max_length=10,
                    ),
                ),
                ("idempotency_key", models.CharField(max_length=100)),
                ("checkout_id", models.CharField(blank=True, max_length=200)),
                ("checkout_url", models.TextField(blank=True)),
                ("payment_id", models.CharField(blank=True, max_length=200)),
                ("charge_id", models.CharField(blank=True, max_length=200)),
                (
                    "payment_method",
                    models.CharField(blank=True, help_text='Such as "Visa ending in 4242".', max_length=100),
                ),
                (
                    "processing_since",
                    models.DateTimeField(
                        blank=True,
                        help_text="The customer has done their part, and the money is on its way.",
                        null=True,
                    ),
                ),
                (
                    "paid_nanos",
                    models.PositiveBigIntegerField(blank=True, help_text="What the provider took.", null=True),
                ),
                (
                    "reversed_nanos",
                    models.PositiveBigIntegerField(default=0, help_text="How much of the credit was taken back."),
                ),
                ("failure", models.CharField(blank=True, help_text="Why it failed, for the customer.", max_length=300)),
                ("created_by", models.CharField(max_length=254)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("paid_at", models.DateTimeField(blank=True, null=True)),
                ("failed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "ledger_transaction",
                    models.OneToOneField(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="top_up",
                        to="billing.ledgertransaction",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="top_ups", to="accounts.organization"
                    ),
                ),
            ],
            options={
                "verbose_name": "top-up",
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="PaymentReversal",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("number", models.PositiveIntegerField(help_text="From 1 for each order.")),
                ("amount_nanos", models.BigIntegerField(help_text="What was taken from the balance.")),
                (
                    "cash_nanos",
                    models.BigIntegerField(help_text="What of it the provider paid out; the rest was a discount."),
                ),
                ("reason", models.CharField(max_length=200)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "ledger_transaction",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="payment_reversal",
                        to="billing.ledgertransaction",
                    ),
                ),
                (
                    "top_up",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="reversals", to="billing.topup"
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
            },
        ),
        migrations.CreateModel(
            name="PaymentMovement",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("provider", models.CharField(max_length=30)),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("refund_total", "Refunded in all"),
                            ("refund_failed", "Refund failed"),
                            ("dispute_withdrawn", "Dispute: funds withdrawn"),
                            ("dispute_reinstated", "Dispute: funds reinstated"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "reference",
                    models.CharField(help_text="The provider's id of the refund or dispute.", max_length=200),
                ),
                ("payment_id", models.CharField(blank=True, max_length=200)),
                ("charge_id", models.CharField(blank=True, max_length=200)),
                ("amount_nanos", models.PositiveBigIntegerField()),
                ("occurred_at", models.DateTimeField()),
                ("recorded_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "top_up",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="movements",
                        to="billing.topup",
                    ),
                ),
            ],
            options={
                "ordering": ["id"],
            },
        ),
        migrations.CreateModel(
            name="PaymentDispute",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("provider", models.CharField(max_length=30)),
                ("dispute_id", models.CharField(max_length=200)),
                ("status", models.CharField(max_length=40)),
                ("status_as_of", models.DateTimeField()),
                ("opened_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "top_up",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="disputes",
                        to="billing.topup",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="PaymentBreak",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("late_failure", "Failed after it was credited"),
                            ("unattributed", "Of no order that we know"),
                            ("foreign_currency", "In another currency"),
                            ("overpaid", "Paid more than ordered"),
                            ("mismatched", "Names an order that is not its own"),
                        ],
                        max_length=20,
                    ),
                ),
                ("provider", models.CharField(max_length=30)),
                ("reference", models.CharField(max_length=200)),
                ("amount_nanos", models.BigIntegerField(default=0)),
                ("detail", models.CharField(max_length=500)),
                ("found_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("resolved_at", models.DateTimeField(blank=True, null=True)),
                ("resolved_by", models.CharField(blank=True, max_length=254)),
                ("resolution", models.CharField(blank=True, max_length=500)),
                (
                    "top_up",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="breaks",
                        to="billing.topup",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.AddIndex(
            model_name="topup",
            index=models.Index(fields=["organization", "-id"], name="top_up_by_organization"),
        ),
        migrations.AddIndex(
            model_name="topup",
            index=models.Index(
                condition=models.Q(("state", "pending")), fields=["provider", "id"], name="top_up_pending"
            ),
        ),
        migrations.AddIndex(
            model_name="topup",
            index=models.Index(fields=["provider", "paid_at"], name="top_up_paid"),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.UniqueConstraint(
                fields=("organization", "idempotency_key"), name="top_up_once_for_its_key"
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.UniqueConstraint(
                condition=models.Q(("checkout_id", ""), _negated=True),
                fields=("provider", "checkout_id"),
                name="top_up_once_for_its_checkout",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.UniqueConstraint(
                condition=models.Q(("payment_id", ""), _negated=True),
                fields=("provider", "payment_id"),
                name="top_up_once_for_its_payment",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.UniqueConstraint(
                condition=models.Q(("charge_id", ""), _negated=True),
                fields=("provider", "charge_id"),
                name="top_up_once_for_its_charge",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.UniqueConstraint(
                condition=models.Q(("origin", "automatic"), ("state", "pending")),
                fields=("organization",),
                name="top_up_one_automatic_pending",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.CheckConstraint(condition=models.Q(("currency", "USD")), name="top_up_in_usd"),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.CheckConstraint(condition=models.Q(("amount_nanos__gt", 0)), name="top_up_of_something"),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("ledger_transaction__isnull", False),
                        ("paid_nanos__isnull", False),
                        ("state__in", ["paid", "refunded"]),
                    ),
                    models.Q(("ledger_transaction", None), ("state__in", ["pending", "failed"])),
                    _connector="OR",
                ),
                name="top_up_credited_where_paid",
            ),
        ),
        migrations.AddConstraint(
            model_name="topup",
            constraint=models.CheckConstraint(
                condition=models.Q(("reversed_nanos__lte", models.F("amount_nanos"))),
                name="top_up_reversed_at_most_whole",
            ),
        ),
        migrations.AddConstraint(
            model_name="paymentreversal",
            constraint=models.UniqueConstraint(fields=("top_up", "number"), name="payment_reversal_number_once"),
        ),
        migrations.AddConstraint(
            model_name="paymentreversal",
            constraint=models.CheckConstraint(
                condition=models.Q(("amount_nanos", 0), _negated=True), name="payment_reversal_of_something"
            ),
        ),
        migrations.AddConstraint(
            model_name="paymentmovement",
            constraint=models.UniqueConstraint(fields=("provider", "kind", "reference"), name="payment_movement_once"),
        ),
        migrations.AddConstraint(
            model_name="paymentdispute",
            constraint=models.UniqueConstraint(fields=("provider", "dispute_id"), name="payment_dispute_once"),
        ),
        migrations.AddConstraint(
            model_name="paymentbreak",
            constraint=models.UniqueConstraint(fields=("provider", "kind", "reference"), name="payment_break_once"),
        ),
        migrations.RunSQL(GUARDS, migrations.RunSQL.noop),
    ]
