"""An index by which alerts read the latest days of all organizations. Made beside running settlement."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0012_alerts_and_webhooks")]

    operations = [
        AddIndexConcurrently(
            "budgetday",
            models.Index(
                condition=models.Q(("key_id", 0)), fields=["admitted_day", "organization_id"], name="budget_day_by_day"
            ),
        ),
    ]
