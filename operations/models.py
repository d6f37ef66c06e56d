"""What ran of the scheduled work. Never needed to do it: a job reads what is due from Redis and Postgres."""

from django.db import models


class JobState(models.Model):
    """How one job stands: one row for each. `running` has an entry for each run that began and has not ended."""

    name = models.CharField(max_length=40, primary_key=True)
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    took_ms = models.PositiveIntegerField(default=0)
    last_done_at = models.DateTimeField(null=True)
    last_failed_at = models.DateTimeField(null=True)
    last_failure = models.CharField(max_length=500, blank=True)
    failures_in_a_row = models.PositiveIntegerField(default=0)
    # Workers that do not know this column yet go on inserting rows.
    running = models.JSONField(default=dict, db_default={})

    class Meta:
        ordering = ["name"]
        verbose_name = "job"
        permissions = [("run_job", "Can run a job now")]

    def __str__(self) -> str:
        return self.name


class JobRun(models.Model):
    """Runs of a job that ended alike within one hour of the clock, UTC; every failure is a row of its own."""

    job = models.CharField(max_length=40)
    hour = models.DateTimeField()
    is_failure = models.BooleanField(default=False)
    detail = models.CharField(max_length=500, blank=True)
    first_started_at = models.DateTimeField()
    last_ended_at = models.DateTimeField()
    runs = models.PositiveIntegerField(default=1)
    slowest_ms = models.PositiveIntegerField(default=0)

    class Meta:
        ordering = ["-last_ended_at"]
        verbose_name = "job run"
        indexes = [models.Index(fields=["job", "-last_ended_at"], name="job_run_by_job")]
        constraints = [
            models.UniqueConstraint(
                fields=["job", "hour"], condition=models.Q(is_failure=False), name="job_run_once_an_hour"
            )
        ]

    def __str__(self) -> str:
        return f"{self.job} {self.hour:%Y-%m-%d %H}h"


class Traffic(models.Model):
    """What all organizations together did in a span of time, by the time of admission. Copied from records, for pages.

    `refused` counts only what came with a known key. Amounts in nano-dollars, as requests were billed: refunds and
    re-ratings are not taken off.
    """

    requests = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)
    refused = models.BigIntegerField(default=0)
    bounded = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)
    upstream_cost_nanos = models.BigIntegerField(default=0)

    class Meta:
        abstract = True


class TrafficMinute(Traffic):
    minute = models.DateTimeField(primary_key=True)

    class Meta:
        ordering = ["-minute"]

    def __str__(self) -> str:
        return f"{self.minute:%Y-%m-%d %H:%M}"


class TrafficHour(Traffic):
    hour = models.DateTimeField(primary_key=True)

    class Meta:
        ordering = ["-hour"]

    def __str__(self) -> str:
        return f"{self.hour:%Y-%m-%d %H}h"


class ProviderBalance(models.Model):
    """What is left on our account at a provider, as it said last. `problem` says why it could not be asked since."""

    upstream = models.CharField(max_length=60, primary_key=True)
    balance_nanos = models.BigIntegerField(null=True)
    looked_at = models.DateTimeField(null=True)
    problem = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["upstream"]

    def __str__(self) -> str:
        return self.upstream
