"""What the management API itself keeps in Postgres: answers to calls that came with an Idempotency-Key."""

from django.db import models
from django.utils import timezone


class ManagementAnswer(models.Model):
    """The answer to an Idempotency-Key of a management key, for a day. It is there exactly where its work was done.

    `sealed_answer` can be read with the text of the API key only: it may hold a secret that is shown once.
    """

    organization = models.ForeignKey("accounts.Organization", models.CASCADE, related_name="+")
    key = models.ForeignKey("accounts.ApiKey", models.CASCADE, related_name="+")
    idempotency_sha256 = models.BinaryField(max_length=32)
    call_sha256 = models.BinaryField(max_length=32)
    status = models.PositiveSmallIntegerField(default=0)
    sealed_answer = models.BinaryField(null=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key", "idempotency_sha256"], name="management_answer_once")]
        indexes = [
            models.Index(fields=["organization", "expires_at"], name="management_answer_by_org"),
            models.Index(fields=["expires_at"], name="management_answer_expiry"),
        ]

    def __str__(self) -> str:
        return f"{self.key_id} {self.status}"
