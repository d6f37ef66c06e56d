"""How a quarantined event was resolved, and why."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0005_redemption_codes"),
    ]

    operations = [
        migrations.AddField(
            model_name="usagequarantine",
            name="resolution",
            field=models.CharField(
                blank=True,
                choices=[("settled", "Settled"), ("discarded", "Discarded")],
                db_default="",
                editable=False,
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="usagequarantine",
            name="resolution_reason",
            field=models.CharField(blank=True, db_default="", editable=False, max_length=500),
        ),
    ]
