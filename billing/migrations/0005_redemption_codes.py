"""Redemption codes. What a code is worth, and who redeemed it, never changes; a code can only be used and revoked."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

REFUSE_CHANGE = """
    CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON billing_redemption
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER worth_is_immutable
        BEFORE DELETE OR UPDATE OF
            code_sha256, amount_nanos, max_redemptions, expires_at, lot_expires_at, lot_priority, created_by
        ON billing_redemptioncode FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0002_organization_shows_cost"),
        ("billing", "0004_rerating"),
    ]

    operations = [
        migrations.CreateModel(
            name="RedemptionAttempts",
            fields=[
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="accounts.organization",
                    ),
                ),
                ("hour", models.DateTimeField()),
                ("attempts", models.PositiveIntegerField()),
            ],
        ),
        migrations.CreateModel(
            name="RedemptionCode",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("code_sha256", models.BinaryField(max_length=32, unique=True)),
                (
                    "prefix",
                    models.CharField(editable=False, help_text="What a person recognizes the code by.", max_length=8),
                ),
                ("amount_nanos", models.PositiveBigIntegerField()),
                (
                    "max_redemptions",
                    models.PositiveIntegerField(default=1, help_text="How many organizations may redeem it."),
                ),
                ("redemption_count", models.PositiveIntegerField(default=0, editable=False)),
                (
                    "expires_at",
                    models.DateTimeField(blank=True, help_text="From then on it cannot be redeemed.", null=True),
                ),
                (
                    "lot_expires_at",
                    models.DateTimeField(blank=True, help_text="From then on its credit cannot be spent.", null=True),
                ),
                ("lot_priority", models.PositiveSmallIntegerField(default=100)),
                (
                    "reason",
                    models.CharField(help_text="What it is for. Members see it beside the credit.", max_length=150),
                ),
                ("created_by", models.CharField(max_length=254)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("revoked_by", models.CharField(blank=True, editable=False, max_length=254)),
                ("revoked_at", models.DateTimeField(blank=True, editable=False, null=True)),
            ],
            options={
                "ordering": ["-id"],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount_nanos__gt", 0)), name="redemption_code_is_worth_something"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("redemption_count__lte", models.F("max_redemptions"))),
                        name="redemption_code_used_as_often_as_allowed",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Redemption",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("redeemed_by", models.CharField(max_length=254)),
                ("redeemed_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "ledger_transaction",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="redemption",
                        to="billing.ledgertransaction",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="redemptions",
                        to="accounts.organization",
                    ),
                ),
                (
                    "code",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="redemptions",
                        to="billing.redemptioncode",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "constraints": [
                    models.UniqueConstraint(fields=("code", "organization"), name="redemption_once_per_organization")
                ],
            },
        ),
        migrations.RunSQL(REFUSE_CHANGE, migrations.RunSQL.noop),
    ]
