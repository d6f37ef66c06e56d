"""The indexes by which a key is found by its beginning or its end, as pages show it. Made beside running work."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("accounts", "0013_audit_is_found_by_where_it_came_from"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="apikey",
            index=models.Index(fields=["prefix"], name="api_key_by_prefix", opclasses=["varchar_pattern_ops"]),
        ),
        AddIndexConcurrently(
            model_name="apikey",
            index=models.Index(fields=["last_four"], name="api_key_by_last_four"),
        ),
    ]
