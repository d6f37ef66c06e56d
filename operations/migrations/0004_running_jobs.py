"""What runs now, for each job: who died in the middle leaves an entry behind. Workers of before insert rows without."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("operations", "0003_provider_balances"),
    ]

    operations = [
        migrations.AddField(
            model_name="jobstate",
            name="running",
            field=models.JSONField(db_default={}, default=dict),
        ),
    ]
