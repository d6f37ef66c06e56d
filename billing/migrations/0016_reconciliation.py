"""Reconciliation: runs, breaks, and what providers report."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_billing_details"),
        ("billing", "0015_documents"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="ProviderReport",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("kind", models.CharField(choices=[("usage", "Usage"), ("cost", "Cost")], max_length=10)),
                ("upstream", models.CharField(max_length=60)),
                ("day", models.DateField()),
                ("origin", models.CharField(help_text="The file or address that it came from.", max_length=300)),
                ("imported_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "ordering": ["-day", "upstream", "kind"],
                "constraints": [
                    models.UniqueConstraint(fields=("kind", "upstream", "day"), name="provider_report_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="ReconciliationRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("admission", "Redis against Postgres"),
                            ("roll_ups", "Roll-ups against records"),
                            ("provider_usage", "Records against the provider's usage"),
                            ("provider_cost", "Records against the provider's cost"),
                            ("payments", "Payments against the provider's list"),
                        ],
                        max_length=20,
                    ),
                ),
                (
                    "day",
                    models.DateField(
                        blank=True, help_text="In UTC; empty where the state of now is compared.", null=True
                    ),
                ),
                ("started_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("ended_at", models.DateTimeField(blank=True, null=True)),
                ("compared", models.PositiveBigIntegerField(default=0)),
                ("found", models.PositiveIntegerField(default=0)),
                ("note", models.CharField(blank=True, max_length=500)),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [models.Index(fields=["source", "-started_at"], name="reconciliation_run_by_source")],
            },
        ),
        migrations.CreateModel(
            name="ProviderReportLine",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("upstream_model", models.CharField(blank=True, max_length=200)),
                ("input_tokens", models.BigIntegerField(default=0)),
                ("output_tokens", models.BigIntegerField(default=0)),
                ("cache_write_5m_tokens", models.BigIntegerField(default=0)),
                ("cache_write_1h_tokens", models.BigIntegerField(default=0)),
                ("cache_read_tokens", models.BigIntegerField(default=0)),
                ("web_searches", models.BigIntegerField(default=0)),
                ("cost_nanos", models.BigIntegerField(default=0)),
                (
                    "report",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="lines", to="billing.providerreport"
                    ),
                ),
            ],
            options={
                "ordering": ["report", "upstream_model"],
                "constraints": [
                    models.UniqueConstraint(fields=("report", "upstream_model"), name="provider_report_line_once")
                ],
            },
        ),
        migrations.CreateModel(
            name="ReconciliationBreak",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "source",
                    models.CharField(
                        choices=[
                            ("admission", "Redis against Postgres"),
                            ("roll_ups", "Roll-ups against records"),
                            ("provider_usage", "Records against the provider's usage"),
                            ("provider_cost", "Records against the provider's cost"),
                            ("payments", "Payments against the provider's list"),
                        ],
                        max_length=20,
                    ),
                ),
                ("subject", models.CharField(max_length=200)),
                ("day", models.DateField(blank=True, null=True)),
                ("detail", models.CharField(max_length=1000)),
                ("amount_nanos", models.BigIntegerField()),
                ("amount_cents", models.BigIntegerField()),
                (
                    "state",
                    models.CharField(
                        choices=[("open", "Open"), ("resolved", "Resolved"), ("vanished", "No longer found")],
                        default="open",
                        max_length=10,
                    ),
                ),
                ("found_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("last_seen_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "resolution",
                    models.CharField(
                        blank=True, choices=[("posting", "By a posting"), ("note", "By a note")], max_length=10
                    ),
                ),
                ("note", models.CharField(blank=True, max_length=1000)),
                ("resolved_by", models.CharField(blank=True, max_length=254)),
                ("resolved_at", models.DateTimeField(blank=True, null=True)),
                ("gone_at", models.DateTimeField(blank=True, help_text="Since when it is no longer found.", null=True)),
                (
                    "ledger_transaction",
                    models.ForeignKey(
                        blank=True,
                        help_text="What settled it.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.ledgertransaction",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to="accounts.organization",
                    ),
                ),
                (
                    "owner",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.SET_NULL,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "indexes": [models.Index(fields=["source", "subject", "-id"], name="reconciliation_break_history")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state", "open")),
                        fields=("source", "subject"),
                        name="reconciliation_break_open_once",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("state", "resolved"), _negated=True),
                            models.Q(
                                models.Q(("resolved_by", ""), _negated=True),
                                models.Q(("note", ""), _negated=True),
                                models.Q(("resolution", ""), _negated=True),
                                ("resolved_at__isnull", False),
                            ),
                            _connector="OR",
                        ),
                        name="reconciliation_break_says_how",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("ledger_transaction__isnull", False), ("resolution", "posting")),
                            models.Q(models.Q(("resolution", "posting"), _negated=True), ("ledger_transaction", None)),
                            _connector="OR",
                        ),
                        name="reconciliation_break_posting_is_named",
                    ),
                ],
            },
        ),
    ]
