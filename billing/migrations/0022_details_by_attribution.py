"""Indexes for the requests of an end user, a tag or a session, made while others write."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("billing", "0021_usage_by_day")]

    operations = [
        AddIndexConcurrently(
            "requestdetail",
            models.Index(
                fields=["organization_id", name, "-request_id"],
                condition=~models.Q(**{name: ""}),
                name=f"detail_by_{name}",
            ),
        )
        for name in ("end_user", "tag", "session")
    ]
