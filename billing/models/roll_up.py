"""Sums of usage records by day, for pages: so that none of them reads records, whatever an organization used.

Costs in nano-dollars, durations in milliseconds. `timed_requests` are those of which the time to the first byte is
known; `first_byte_ms` and `duration_ms` are sums over them.
"""

from django.contrib.postgres.indexes import BrinIndex
from django.db import models

from billing.usage_event import MAX_END_USER_CHARS, MAX_SESSION_CHARS, MAX_TAG_CHARS


class UsageDay(models.Model):
    """The usage hours of one UTC day, summed. Triggers of UsageHour write it, nobody else."""

    organization_id = models.BigIntegerField()
    day = models.DateField()
    key_id = models.BigIntegerField()
    model_id = models.CharField(max_length=100)
    requests = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)
    upstream_cost_nanos = models.BigIntegerField(default=0)
    timed_requests = models.BigIntegerField(default=0)
    first_byte_ms = models.BigIntegerField(default=0)
    duration_ms = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-day"]
        constraints = [
            models.UniqueConstraint(fields=["organization_id", "day", "key_id", "model_id"], name="usage_day_once"),
        ]
        indexes = [BrinIndex(fields=["day"], opclasses=["date_minmax_multi_ops"], name="usage_day_by_day")]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.day}"


class AttributedDay(models.Model):
    """What was used on one UTC day by requests that name an end user, a tag or a session.

    Rows of one organization and day are bounded (billing/settlement/attributed_days.py); what comes beyond is summed
    under OTHER. Records of which RequestDetail says `is_attributed` are in it: who erases a detail erases it here too.
    """

    OTHER = " other"  # No client can name it: what they write never begins with a space.

    organization_id = models.BigIntegerField()
    day = models.DateField()
    end_user = models.CharField(max_length=MAX_END_USER_CHARS)
    tag = models.CharField(max_length=MAX_TAG_CHARS)
    session = models.CharField(max_length=MAX_SESSION_CHARS)
    key_id = models.BigIntegerField()
    model_id = models.CharField(max_length=100)
    requests = models.BigIntegerField(default=0)
    input_tokens = models.BigIntegerField(default=0)
    output_tokens = models.BigIntegerField(default=0)
    cache_write_tokens = models.BigIntegerField(default=0)
    cache_read_tokens = models.BigIntegerField(default=0)
    cost_nanos = models.BigIntegerField(default=0)
    timed_requests = models.BigIntegerField(default=0)
    first_byte_ms = models.BigIntegerField(default=0)
    duration_ms = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-day"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization_id", "day", "end_user", "tag", "session", "key_id", "model_id"],
                name="attributed_day_once",
            ),
        ]
        indexes = [BrinIndex(fields=["day"], opclasses=["date_minmax_multi_ops"], name="attributed_day_by_day")]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.day} {self.end_user} {self.tag} {self.session}"


class RefusedDay(models.Model):
    """How many requests of an organization were refused on one UTC day, by reason. A trigger counts, nobody else.

    It outlives the refused requests, and counts the ones that were not kept for themselves.
    """

    organization_id = models.BigIntegerField()
    day = models.DateField()
    error_code = models.CharField(max_length=60)
    requests = models.BigIntegerField(default=0)

    class Meta:
        ordering = ["-day"]
        constraints = [
            models.UniqueConstraint(fields=["organization_id", "day", "error_code"], name="refused_day_once"),
        ]

    def __str__(self) -> str:
        return f"{self.organization_id} {self.day} {self.error_code}"
