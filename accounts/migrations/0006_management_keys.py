"""Keys that read reports and call no model."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0005_billing_details"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="is_management",
            field=models.BooleanField(
                default=False, editable=False, help_text="Reads reports of the whole organization, and calls no model."
            ),
        ),
    ]
