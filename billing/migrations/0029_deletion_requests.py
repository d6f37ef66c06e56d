"""That an owner wants a closed organization deleted, until it is."""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0012_former_slugs"),
        ("billing", "0028_reratings_by_two_people"),
    ]

    operations = [
        migrations.CreateModel(
            name="DeletionRequest",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("made_by", models.CharField(help_text="The actor.", max_length=254)),
                ("made_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("erase_after", models.DateTimeField()),
                (
                    "waits_because",
                    models.CharField(
                        blank=True, default="", help_text="Why it was not erased in time.", max_length=300
                    ),
                ),
                ("ended_at", models.DateTimeField(editable=False, null=True)),
                (
                    "ended_by",
                    models.CharField(blank=True, default="", editable=False, help_text="The actor.", max_length=254),
                ),
                (
                    "organization",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="deletion_requests",
                        to="accounts.organization",
                    ),
                ),
            ],
            options={
                "ordering": ["-made_at"],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("ended_at", None)),
                        fields=("organization",),
                        name="one_open_deletion_request",
                    )
                ],
            },
        ),
        migrations.RunSQL(
            "SELECT audit_watch('billing_deletionrequest', 'id', 'organization_id', 'waits_because', '');",
            migrations.RunSQL.noop,
        ),
    ]
