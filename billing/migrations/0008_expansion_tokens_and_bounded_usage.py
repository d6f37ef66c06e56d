"""What a provider may add to a prompt, by language model; and counts that were bounded to what is possible.

Both are safe on a running system: the column has a default in the database, and the choices change nothing there.
"""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0007_what_was_written_stays"),
    ]

    operations = [
        migrations.AddField(
            model_name="languagemodel",
            name="expansion_tokens",
            field=models.JSONField(
                blank=True,
                db_default={},
                default=dict,
                help_text=(
                    "By how many tokens the provider may make a prompt longer, for one document or use of a tool."
                ),
            ),
        ),
        migrations.AlterField(
            model_name="usagerecord",
            name="usage_source",
            field=models.CharField(
                choices=[
                    ("provider", "Provider"),
                    ("estimated", "Estimated"),
                    ("partial", "Partial"),
                    ("orphan", "Orphan"),
                    ("bounded", "Bounded"),
                ],
                max_length=10,
            ),
        ),
    ]
