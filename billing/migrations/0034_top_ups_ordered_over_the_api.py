"""A top-up says that it was ordered over the API. Those before were put down to the console."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0033_proven_months"),
    ]

    operations = [
        migrations.AlterField(
            model_name="topup",
            name="origin",
            field=models.CharField(
                choices=[("console", "Console"), ("api", "API"), ("automatic", "Automatic")],
                default="console",
                max_length=10,
            ),
        ),
    ]
