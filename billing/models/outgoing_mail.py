"""The outbox of mail: written in the transaction that gives the reason, sent after it by whoever comes next."""

import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils import timezone

from accounts.models import Organization


class OutgoingMail(models.Model):
    """One mail to one person. `id` is also its Message-ID, which stays the same however often it must be sent.

    It is addressed to a person, not to an address: where it goes is decided when it goes, and only a confirmed address
    gets it. `template` names a folder of templates/mail; `context` holds what it needs, ids and plain values.
    """

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    organization = models.ForeignKey(Organization, models.CASCADE, null=True, blank=True, related_name="+")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    template = models.CharField(max_length=60)
    context = models.JSONField(default=dict)
    once_key = models.CharField(max_length=200, unique=True, help_text="The same key is queued once.")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    attempts = models.PositiveSmallIntegerField(default=0)
    sent_at = models.DateTimeField(null=True, blank=True)
    sent_to = models.CharField(max_length=254, blank=True)
    given_up_at = models.DateTimeField(null=True, blank=True)
    problem = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name_plural = "outgoing mail"
        indexes = [
            models.Index(fields=["-created_at", "-id"], name="outgoing_mail_by_time"),
            models.Index(
                fields=["next_attempt_at"], condition=Q(sent_at=None, given_up_at=None), name="outgoing_mail_due"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.template} to {self.user}"
