"""Whom documents are made out to."""

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0004_invitations"),
    ]

    operations = [
        migrations.CreateModel(
            name="BillingDetails",
            fields=[
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="billing_details",
                        serialize=False,
                        to="accounts.organization",
                    ),
                ),
                ("legal_name", models.CharField(blank=True, max_length=200)),
                ("address_line_1", models.CharField(blank=True, max_length=150)),
                ("address_line_2", models.CharField(blank=True, max_length=150)),
                ("postal_code", models.CharField(blank=True, max_length=20)),
                ("city", models.CharField(blank=True, max_length=100)),
                ("region", models.CharField(blank=True, max_length=100)),
                (
                    "country",
                    models.CharField(
                        blank=True,
                        max_length=2,
                        validators=[
                            django.core.validators.RegexValidator("^[A-Z]{2}$", "Two capital letters, such as DE.")
                        ],
                    ),
                ),
                ("tax_id", models.CharField(blank=True, max_length=40, verbose_name="tax id")),
                (
                    "tax_id_state",
                    models.CharField(
                        choices=[("not_checked", "Not checked"), ("valid", "Valid"), ("invalid", "Invalid")],
                        default="not_checked",
                        max_length=12,
                    ),
                ),
                ("tax_id_checked_at", models.DateTimeField(blank=True, null=True)),
                (
                    "tax_id_evidence",
                    models.CharField(blank=True, help_text="How it was checked, and by whom.", max_length=300),
                ),
            ],
            options={
                "verbose_name_plural": "billing details",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("tax_id_checked_at", None), ("tax_id_state", "not_checked")),
                            models.Q(
                                models.Q(("tax_id_state", "not_checked"), _negated=True),
                                ("tax_id_checked_at__isnull", False),
                                models.Q(("tax_id_evidence", ""), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="tax_id_check_has_evidence",
                    )
                ],
            },
        ),
    ]
