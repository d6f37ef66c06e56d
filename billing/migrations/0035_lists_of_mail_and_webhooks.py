"""The indexes by which lists of mail and of webhook deliveries are read, newest first. Made beside running work."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("billing", "0034_top_ups_ordered_over_the_api"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="outgoingmail",
            index=models.Index(fields=["-created_at", "-id"], name="outgoing_mail_by_time"),
        ),
        AddIndexConcurrently(
            model_name="webhookdelivery",
            index=models.Index(fields=["-created_at", "-id"], name="webhook_delivery_by_time"),
        ),
    ]
