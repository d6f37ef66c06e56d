"""What the gateway itself keeps in Postgres: answers to requests that were sent with an Idempotency-Key."""

from django.db import models
from django.utils import timezone


class IdempotentAnswer(models.Model):
    """The first answer to an Idempotency-Key of an API key, for a day.

    The answer is encrypted with a key made from the key's API key, which is stored nowhere: only who asked can read
    it.
    """

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        ANSWERED = "answered", "Answered"
        NOT_KEPT = "not_kept", "Answered, not kept"

    key_id = models.BigIntegerField()
    idempotency_sha256 = models.BinaryField(max_length=32)
    body_sha256 = models.BinaryField(max_length=32)
    request_id = models.UUIDField()
    state = models.CharField(max_length=10, choices=State.choices, default=State.RUNNING)
    sealed_answer = models.BinaryField(null=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["key_id", "idempotency_sha256"], name="idempotent_answer_once")]
        indexes = [models.Index(fields=["expires_at"], name="idempotent_answer_expiry")]

    def __str__(self) -> str:
        return f"{self.key_id} {self.request_id} {self.state}"
