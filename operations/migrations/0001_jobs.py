"""Tables of what ran of the scheduled work. Nothing reads or writes them before this version."""

from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies: list[tuple[str, str]] = []

    operations = [
        migrations.CreateModel(
            name="JobState",
            fields=[
                ("name", models.CharField(max_length=40, primary_key=True, serialize=False)),
                ("started_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                ("took_ms", models.PositiveIntegerField(default=0)),
                ("last_done_at", models.DateTimeField(null=True)),
                ("last_failed_at", models.DateTimeField(null=True)),
                ("last_failure", models.CharField(blank=True, max_length=500)),
                ("failures_in_a_row", models.PositiveIntegerField(default=0)),
            ],
            options={
                "ordering": ["name"],
                "verbose_name": "job",
                "permissions": [("run_job", "Can run a job now")],
            },
        ),
        migrations.CreateModel(
            name="JobRun",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("job", models.CharField(max_length=40)),
                ("hour", models.DateTimeField()),
                ("is_failure", models.BooleanField(default=False)),
                ("detail", models.CharField(blank=True, max_length=500)),
                ("first_started_at", models.DateTimeField()),
                ("last_ended_at", models.DateTimeField()),
                ("runs", models.PositiveIntegerField(default=1)),
                ("slowest_ms", models.PositiveIntegerField(default=0)),
            ],
            options={
                "ordering": ["-last_ended_at"],
                "verbose_name": "job run",
                "indexes": [models.Index(fields=["job", "-last_ended_at"], name="job_run_by_job")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("is_failure", False)), fields=("job", "hour"), name="job_run_once_an_hour"
                    )
                ],
            },
        ),
    ]
