"""Each day of a key knows its last request."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0025_data_retention_and_erasure")]

    operations = [
        migrations.AddField(
            model_name="budgetday",
            name="last_admitted_at",
            field=models.DateTimeField(help_text="Of the latest billed request that it sums.", null=True),
        ),
    ]
