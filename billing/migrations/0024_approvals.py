"""Money by two people: what operators ask for, and who decided. Codes may wait for it."""

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models

# What was asked for stays as it was asked.
GUARD = """
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_approval FOR EACH ROW
        WHEN (ROW(OLD.kind, OLD.organization_id, OLD.terms, OLD.amount_nanos, OLD.reason, OLD.idempotency_key,
                  OLD.asked_by_id, OLD.asked_at, OLD.expires_at) IS DISTINCT FROM
              ROW(NEW.kind, NEW.organization_id, NEW.terms, NEW.amount_nanos, NEW.reason, NEW.idempotency_key,
                  NEW.asked_by_id, NEW.asked_at, NEW.expires_at))
        EXECUTE FUNCTION ledger_refuse_other_terms();
    CREATE TRIGGER kept BEFORE DELETE ON billing_approval FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_approval EXECUTE FUNCTION ledger_refuse_truncate();
    SELECT audit_watch('billing_approval', 'id', 'organization_id', '', '');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0010_staff_roles"),
        ("billing", "0023_budgets_of_members_and_end_users"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name="Approval",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "kind",
                    models.CharField(
                        choices=[
                            ("grant", "Grant of credit"),
                            ("adjustment", "Adjustment"),
                            ("credit_limit", "Credit limit"),
                            ("price_factor", "Price factor"),
                            ("usage_refund", "Refund of a request"),
                            ("payment_refund", "Payment refund"),
                            ("recurring_credit", "Recurring credit"),
                            ("codes", "Redemption codes"),
                        ],
                        max_length=20,
                    ),
                ),
                ("terms", models.JSONField()),
                ("amount_nanos", models.PositiveBigIntegerField()),
                ("reason", models.CharField(max_length=500)),
                ("idempotency_key", models.CharField(max_length=260, unique=True)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("applied", "Applied"),
                            ("refused", "Refused"),
                            ("withdrawn", "Withdrawn"),
                            ("expired", "Expired"),
                        ],
                        default="waiting",
                        max_length=10,
                    ),
                ),
                ("asked_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "shell_user",
                    models.CharField(blank=True, help_text="The operating system's user of a command.", max_length=64),
                ),
                ("expires_at", models.DateTimeField()),
                ("decided_at", models.DateTimeField(null=True)),
                ("decision", models.CharField(blank=True, help_text="Why it was refused.", max_length=500)),
                (
                    "asked_by",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT, related_name="+", to=settings.AUTH_USER_MODEL
                    ),
                ),
                (
                    "decided_by",
                    models.ForeignKey(
                        help_text="Empty: applied by one person.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
                (
                    "ledger_transaction",
                    models.ForeignKey(
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.ledgertransaction",
                    ),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        help_text="Empty for redemption codes.",
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="approvals",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "ordering": ["-id"],
                "permissions": [
                    ("adjust_balance", "Can adjust a balance"),
                    ("change_credit_limit", "Can change a credit limit"),
                ],
            },
        ),
        migrations.AddField(
            model_name="redemptioncode",
            name="approval",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                help_text="Nobody redeems it before that is applied.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="codes",
                to="billing.approval",
            ),
        ),
        migrations.AddIndex(
            model_name="approval",
            index=models.Index(condition=models.Q(("state", "waiting")), fields=["-id"], name="approval_waiting"),
        ),
        migrations.AddIndex(
            model_name="approval",
            index=models.Index(fields=["asked_by", "-asked_at"], name="approval_by_asker"),
        ),
        migrations.AddIndex(
            model_name="approval",
            index=models.Index(fields=["organization", "-id"], name="approval_by_organization"),
        ),
        migrations.AddConstraint(
            model_name="approval",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("decided_by", None),
                    models.Q(("decided_by", models.F("asked_by")), _negated=True),
                    ("state", "withdrawn"),
                    _connector="OR",
                ),
                name="approval_by_a_second_person",
            ),
        ),
        migrations.AddConstraint(
            model_name="approval",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("decided_at", None), ("state", "waiting")),
                    models.Q(models.Q(("state", "waiting"), _negated=True), ("decided_at__isnull", False)),
                    _connector="OR",
                ),
                name="approval_is_decided_or_waits",
            ),
        ),
        migrations.RunSQL(GUARD, migrations.RunSQL.noop),
    ]
