"""Alerts, the outbox of mail, and customers' webhooks; when a model retires."""

import uuid

import django.contrib.postgres.fields
import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_invitations"),
        ("billing", "0011_payments"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Alert",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("low_balance", "Low balance"),
                            ("balance_exhausted", "Balance used up"),
                            ("budget_warning", "Budget nearly used up"),
                            ("budget_reached", "Budget used up"),
                            ("spend_spike", "Unusual spend"),
                            ("projected_over_budget", "Projected above budget"),
                            ("key_expiring", "Key about to expire"),
                            ("price_change", "Price change"),
                            ("model_retiring", "Model retires"),
                            ("automatic_top_up_failed", "Automatic top-up failed"),
                            ("automatic_top_up_suspended", "Automatic top-up suspended"),
                            ("payment_failed", "Payment failed"),
                            ("webhook_failing", "Webhook failing"),
                            ("webhook_switched_off", "Webhook switched off"),
                        ],
                        max_length=30,
                    ),
                ),
                ("subject", models.CharField(blank=True, max_length=100)),
                ("details", models.JSONField(default=dict)),
                ("raised_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("cleared_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("notified_at", models.DateTimeField(blank=True, editable=False, null=True)),
                (
                    "clearing_told",
                    models.BooleanField(
                        db_default=False, default=False, editable=False, help_text="Webhooks know that it is over."
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
            },
        ),
        migrations.CreateModel(
            name="AlertSettings",
            fields=[
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="alert_settings",
                        serialize=False,
                        to="accounts.organization",
                    ),
                ),
                (
                    "low_balance_nanos",
                    models.PositiveBigIntegerField(
                        blank=True, help_text="Empty: three usual days, at least a dollar. Zero: never.", null=True
                    ),
                ),
                ("budget_warning_percent", models.PositiveSmallIntegerField(default=80)),
                (
                    "spike_percent",
                    models.PositiveIntegerField(
                        default=300, help_text="Of a usual day, from which on a day's spend is unusual."
                    ),
                ),
                (
                    "spike_minimum_nanos",
                    models.PositiveBigIntegerField(
                        default=5000000000, help_text="A day that costs less is never unusual."
                    ),
                ),
                ("mails_owners", models.BooleanField(default=True)),
                ("mails_admins", models.BooleanField(default=False)),
                ("mails_billing", models.BooleanField(default=True)),
                ("mails_key_makers", models.BooleanField(default=True)),
                (
                    "muted_kinds",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=30), blank=True, default=list, size=None
                    ),
                ),
            ],
            options={
                "verbose_name_plural": "alert settings",
            },
        ),
        migrations.CreateModel(
            name="OutgoingMail",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("template", models.CharField(max_length=60)),
                ("context", models.JSONField(default=dict)),
                ("once_key", models.CharField(help_text="The same key is queued once.", max_length=200, unique=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("next_attempt_at", models.DateTimeField(default=django.utils.timezone.now)),
                ("attempts", models.PositiveSmallIntegerField(default=0)),
                ("sent_at", models.DateTimeField(blank=True, null=True)),
                ("sent_to", models.CharField(blank=True, max_length=254)),
                ("given_up_at", models.DateTimeField(blank=True, null=True)),
                ("problem", models.CharField(blank=True, max_length=300)),
            ],
            options={
                "verbose_name_plural": "outgoing mail",
                "ordering": ["-created_at"],
            },
        ),
        migrations.CreateModel(
            name="WebhookDelivery",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("event_id", models.CharField(max_length=60)),
                ("event_type", models.CharField(max_length=60)),
                ("body", models.TextField()),
                (
                    "state",
                    models.CharField(
                        choices=[("waiting", "Waiting"), ("delivered", "Delivered"), ("failed", "Failed")],
                        default="waiting",
                        max_length=10,
                    ),
                ),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("next_attempt_at", models.DateTimeField(default=django.utils.timezone.now)),
                (
                    "attempt_count",
                    models.PositiveSmallIntegerField(default=0, help_text="Since it was queued, or replayed."),
                ),
                ("claimed_until", models.DateTimeField(blank=True, editable=False, null=True)),
                ("attempts", models.JSONField(default=list)),
                ("answer", models.CharField(blank=True, help_text="How the latest answer began.", max_length=500)),
                ("delivered_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "verbose_name_plural": "webhook deliveries",
                "ordering": ["-created_at", "-id"],
            },
        ),
        migrations.CreateModel(
            name="WebhookEndpoint",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("url", models.CharField(max_length=500)),
                ("description", models.CharField(blank=True, max_length=100)),
                (
                    "kinds",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=30),
                        blank=True,
                        default=list,
                        help_text="Kinds of alerts; empty: all of them.",
                        size=None,
                    ),
                ),
                ("sealed_secret", models.TextField(editable=False)),
                ("sealed_previous_secret", models.TextField(blank=True, editable=False)),
                ("previous_secret_ends_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("failing_since", models.DateTimeField(blank=True, editable=False, null=True)),
                ("switched_off_at", models.DateTimeField(blank=True, editable=False, null=True)),
                ("switched_off_reason", models.CharField(blank=True, editable=False, max_length=200)),
                ("removed_at", models.DateTimeField(blank=True, editable=False, null=True)),
            ],
            options={
                "ordering": ["id"],
            },
        ),
        migrations.AddField(
            model_name="languagemodel",
            name="retires_at",
            field=models.DateTimeField(
                blank=True, help_text="When it will go off sale; organizations that use it are told before.", null=True
            ),
        ),
        migrations.AddField(
            model_name="alert",
            name="key",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="accounts.apikey",
            ),
        ),
        migrations.AddField(
            model_name="alert",
            name="organization",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="alerts", to="accounts.organization"
            ),
        ),
        migrations.AddConstraint(
            model_name="alertsettings",
            constraint=models.CheckConstraint(
                condition=models.Q(("budget_warning_percent__gte", 1), ("budget_warning_percent__lte", 99)),
                name="alert_settings_warning_below_budget",
            ),
        ),
        migrations.AddConstraint(
            model_name="alertsettings",
            constraint=models.CheckConstraint(
                condition=models.Q(("spike_percent__gte", 110)), name="alert_settings_spike_above_usual"
            ),
        ),
        migrations.AddField(
            model_name="outgoingmail",
            name="organization",
            field=models.ForeignKey(
                blank=True,
                null=True,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to="accounts.organization",
            ),
        ),
        migrations.AddField(
            model_name="outgoingmail",
            name="user",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="+", to=settings.AUTH_USER_MODEL
            ),
        ),
        migrations.AddField(
            model_name="webhookendpoint",
            name="created_by",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="webhookendpoint",
            name="organization",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="webhook_endpoints",
                to="accounts.organization",
            ),
        ),
        migrations.AddField(
            model_name="webhookdelivery",
            name="endpoint",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE, related_name="deliveries", to="billing.webhookendpoint"
            ),
        ),
        migrations.AddIndex(
            model_name="alert",
            index=models.Index(fields=["organization", "-id"], name="alert_by_organization"),
        ),
        migrations.AddIndex(
            model_name="alert",
            index=models.Index(
                condition=models.Q(("cleared_at", None), ("notified_at", None)), fields=["id"], name="alert_to_notify"
            ),
        ),
        migrations.AddIndex(
            model_name="alert",
            index=models.Index(fields=["notified_at"], name="alert_by_notice"),
        ),
        migrations.AddIndex(
            model_name="alert",
            index=models.Index(
                condition=models.Q(
                    ("cleared_at__isnull", False), ("clearing_told", False), ("notified_at__isnull", False)
                ),
                fields=["id"],
                name="alert_clearing_to_tell",
            ),
        ),
        migrations.AddConstraint(
            model_name="alert",
            constraint=models.UniqueConstraint(
                condition=models.Q(("cleared_at", None)),
                fields=("organization", "kind", "subject"),
                name="alert_open_once",
            ),
        ),
        migrations.AddIndex(
            model_name="outgoingmail",
            index=models.Index(
                condition=models.Q(("given_up_at", None), ("sent_at", None)),
                fields=["next_attempt_at"],
                name="outgoing_mail_due",
            ),
        ),
        migrations.AddIndex(
            model_name="webhookendpoint",
            index=models.Index(
                condition=models.Q(("removed_at", None)), fields=["organization"], name="webhook_endpoint_kept"
            ),
        ),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(
                condition=models.Q(("state", "waiting")), fields=["next_attempt_at"], name="webhook_delivery_due"
            ),
        ),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(fields=["endpoint", "-created_at"], name="webhook_delivery_by_endpoint"),
        ),
        migrations.AddIndex(
            model_name="webhookdelivery",
            index=models.Index(
                condition=models.Q(("claimed_until__isnull", False)),
                fields=["endpoint"],
                name="webhook_delivery_claimed",
            ),
        ),
        migrations.AddConstraint(
            model_name="webhookdelivery",
            constraint=models.UniqueConstraint(fields=("endpoint", "event_id"), name="webhook_delivery_once"),
        ),
    ]
