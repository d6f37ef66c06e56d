"""Slugs that organizations had before, and why one is suspended. Versions before write neither."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0011_key_owners"),
    ]

    operations = [
        migrations.AddField(
            model_name="organization",
            name="status_reason",
            field=models.CharField(
                blank=True,
                db_default="",
                default="",
                help_text="Why it is suspended or closed; for operators.",
                max_length=300,
            ),
        ),
        migrations.CreateModel(
            name="FormerSlug",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("slug", models.SlugField(max_length=60, unique=True)),
                ("left_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="former_slugs",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "ordering": ["-left_at"],
            },
        ),
        migrations.RunSQL(
            "SELECT audit_watch('accounts_formerslug', 'id', 'organization_id', '', '');", migrations.RunSQL.noop
        ),
    ]
