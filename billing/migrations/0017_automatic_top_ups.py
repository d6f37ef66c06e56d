"""Automatic top-ups, recurring credit, and refunds that operators order. Only new tables and an empty column."""

import uuid

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_billing_details"),
        ("billing", "0016_reconciliation"),
    ]

    operations = [
        migrations.AddField(
            model_name="topup",
            name="checked_at",
            field=models.DateTimeField(blank=True, help_text="When the provider was last asked about it.", null=True),
        ),
        migrations.CreateModel(
            name="AutomaticTopUp",
            fields=[
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        primary_key=True,
                        related_name="automatic_top_up",
                        serialize=False,
                        to="accounts.organization",
                    ),
                ),
                ("is_on", models.BooleanField(default=False)),
                (
                    "threshold_nanos",
                    models.PositiveBigIntegerField(default=10000000000, help_text="Below this balance it tops up."),
                ),
                ("amount_nanos", models.PositiveBigIntegerField(default=50000000000)),
                ("max_day_nanos", models.PositiveBigIntegerField(default=200000000000)),
                ("max_month_nanos", models.PositiveBigIntegerField(default=1000000000000)),
                ("max_day_count", models.PositiveSmallIntegerField(default=3)),
                ("max_month_count", models.PositiveSmallIntegerField(default=20)),
                ("provider", models.CharField(blank=True, max_length=30)),
                ("customer_id", models.CharField(blank=True, max_length=200)),
                ("method_id", models.CharField(blank=True, max_length=200)),
                ("method_label", models.CharField(blank=True, max_length=100)),
                (
                    "card_reference",
                    models.UUIDField(
                        default=uuid.uuid4,
                        help_text="What the provider knows the page by on which a card is kept.",
                        unique=True,
                    ),
                ),
                ("failures", models.PositiveSmallIntegerField(default=0)),
                (
                    "next_attempt_at",
                    models.DateTimeField(blank=True, help_text="Not before; empty: at once.", null=True),
                ),
                ("suspended_at", models.DateTimeField(blank=True, null=True)),
                (
                    "reason",
                    models.CharField(blank=True, help_text="Why it failed, was suspended, or waits.", max_length=300),
                ),
                ("changed_by", models.CharField(blank=True, max_length=254)),
                ("changed_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "verbose_name": "automatic top-up",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("is_on", False), models.Q(("method_id", ""), _negated=True), _connector="OR"
                        ),
                        name="automatic_top_up_has_a_card",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("amount_nanos__gt", 0)), name="automatic_top_up_of_something"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PaymentRefund",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("amount_nanos", models.PositiveBigIntegerField()),
                ("idempotency_key", models.CharField(max_length=100)),
                ("reason", models.CharField(max_length=200)),
                ("created_by", models.CharField(max_length=254)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("done_at", models.DateTimeField(blank=True, help_text="When the provider had said yes.", null=True)),
                ("refused", models.CharField(blank=True, help_text="Why the provider said no.", max_length=300)),
                (
                    "top_up",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="refunds", to="billing.topup"
                    ),
                ),
            ],
            options={
                "verbose_name": "payment refund",
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("top_up", "idempotency_key"), name="payment_refund_once_for_its_key"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("amount_nanos__gt", 0)), name="payment_refund_of_something"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="RecurringCredit",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("amount_nanos", models.PositiveBigIntegerField()),
                ("first_month", models.DateField(help_text="The first day of the first month.")),
                (
                    "last_month",
                    models.DateField(
                        blank=True, help_text="The first day of the last month; empty: no end.", null=True
                    ),
                ),
                (
                    "reason",
                    models.CharField(help_text="What it is for. Members see it beside the credit.", max_length=150),
                ),
                ("created_by", models.CharField(max_length=254)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="recurring_credits",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "verbose_name": "recurring credit",
                "ordering": ["-id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount_nanos__gt", 0)), name="recurring_credit_of_something"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("first_month__day", 1),
                            models.Q(("last_month", None), ("last_month__day", 1), _connector="OR"),
                        ),
                        name="recurring_credit_by_whole_months",
                    ),
                ],
            },
        ),
    ]
