"""Who drafted and who approved a price, by account. Drafts get the accounts that their addresses name."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# Of drafts alone: what was approved is never edited, and keeps the names that were written down then.
NAME_ACCOUNTS = r"""
    UPDATE billing_priceversion AS version SET drafted_by_id = login.id FROM accounts_user AS login
        WHERE version.approved_at IS NULL
            AND lower(login.email) = lower(btrim(regexp_replace(version.created_by, ' \(shell:[^()]*\)$', '')));
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0029_deletion_requests"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="priceversion",
            name="drafted_by",
            field=models.ForeignKey(
                blank=True,
                help_text="The account of who drafted it; empty: a file or a job did.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="priceversion",
            name="decided_by",
            field=models.ForeignKey(
                blank=True,
                help_text="The account of who approved it.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AlterField(
            model_name="priceversion",
            name="created_by",
            field=models.CharField(help_text="Who drafted it, as written down then.", max_length=254),
        ),
        migrations.AlterField(
            model_name="priceversion",
            name="approved_by",
            field=models.CharField(blank=True, help_text="Who approved it, as written down then.", max_length=254),
        ),
        migrations.AddConstraint(
            model_name="priceversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("decided_by", None),
                    ("drafted_by", None),
                    models.Q(("decided_by", models.F("drafted_by")), _negated=True),
                    _connector="OR",
                ),
                name="price_version_by_a_second_person",
            ),
        ),
        migrations.RunSQL(NAME_ACCOUNTS, migrations.RunSQL.noop),
    ]
