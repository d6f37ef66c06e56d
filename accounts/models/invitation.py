"""Invitations: somebody's address is asked to join, and becomes a member by its own consent."""

from django.conf import settings
from django.db import models
from django.utils import timezone

from accounts.models.organization import Organization, Role


class Invitation(models.Model):
    """Open until it is accepted, withdrawn or expired. Only the SHA-256 of the mailed token is stored."""

    organization = models.ForeignKey(Organization, models.CASCADE, related_name="invitations")
    email = models.EmailField(max_length=254, help_text="In lower case.")
    role = models.CharField(max_length=10, choices=Role.choices)
    token_sha256 = models.BinaryField(max_length=32, unique=True, editable=False)
    invited_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    expires_at = models.DateTimeField()
    accepted_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+")
    accepted_at = models.DateTimeField(null=True, blank=True)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "email"],
                condition=models.Q(accepted_at=None, withdrawn_at=None),
                name="invitation_open_once",
            )
        ]
        indexes = [models.Index(fields=["email", "created_at"], name="invitation_by_address")]

    def __str__(self) -> str:
        return f"{self.email} ({self.role}, {self.organization})"

    @property
    def state(self) -> str:
        """Say whether it is `open`, or how it has ended: `accepted`, `withdrawn` or `expired`."""
        if self.accepted_at is not None:
            return "accepted"
        if self.withdrawn_at is not None:
            return "withdrawn"
        return "open" if self.expires_at > timezone.now() else "expired"
