"""A table of refused requests. Nothing reads or writes it before this version, so it is safe on a running system."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("billing", "0013_budget_days_by_day")]

    operations = [
        migrations.CreateModel(
            name="RefusedRequest",
            fields=[
                ("request_id", models.UUIDField(primary_key=True, serialize=False)),
                ("organization_id", models.BigIntegerField()),
                ("key_id", models.BigIntegerField()),
                ("endpoint", models.CharField(max_length=20)),
                ("model_id", models.CharField(blank=True, max_length=100)),
                ("status", models.SmallIntegerField()),
                ("error_code", models.CharField(max_length=60)),
                ("message", models.CharField(max_length=1000)),
                ("repeats", models.IntegerField(default=0)),
                ("refused_at", models.DateTimeField()),
            ],
            options={
                "ordering": ["-request_id"],
                "indexes": [
                    models.Index(fields=["organization_id", "-request_id"], name="refused_by_organization"),
                    models.Index(fields=["refused_at"], name="refused_by_time"),
                ],
            },
        ),
    ]
