"""The audit: who changed what, from where. Postgres writes it, in the transaction of the change; nobody edits it."""

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class AuditEntry(models.Model):
    """One change of one row, or one act of an operator. Triggers write it (migration 0008), so that no writer forgets.

    `before` and `after` hold the columns that differ; a secret or a person's address in them is "(hidden)". Rows name
    people and keys by number, so that an audit may outlive a person. Without an actor, a key and a source somebody
    worked in the database itself, as `database_user`.
    """

    at = models.DateTimeField(db_default=Now(), editable=False)
    action = models.CharField(max_length=40, help_text="created, changed, deleted, or what an operator did.")
    subject_table = models.CharField(max_length=63)
    subject_id = models.CharField(max_length=64)
    organization_id = models.BigIntegerField(null=True, help_text="Whose audit it stands in, too.")
    before = models.JSONField(null=True)
    after = models.JSONField(null=True)
    actor_id = models.BigIntegerField(null=True, help_text="The user who did it.")
    key_id = models.BigIntegerField(null=True, help_text="The API key that it was done with.")
    address = models.CharField(max_length=45, db_default="")
    source = models.CharField(max_length=200, db_default="", help_text="The page, command or job.")
    shell_user = models.CharField(max_length=64, db_default="", help_text="The operating system's user of a command.")
    database_user = models.CharField(max_length=63, db_default="")

    class Meta:
        ordering = ["-id"]
        verbose_name = "audit entry"
        verbose_name_plural = "audit"
        indexes = [
            models.Index(
                fields=["organization_id", "-id"],
                condition=Q(organization_id__isnull=False),
                name="audit_by_organization",
            ),
            models.Index(fields=["actor_id", "-id"], condition=Q(actor_id__isnull=False), name="audit_by_actor"),
            models.Index(fields=["subject_table", "subject_id", "-id"], name="audit_by_subject"),
            models.Index(fields=["subject_table", "-id"], name="audit_by_table"),
            models.Index(fields=["action", "-id"], name="audit_by_action"),
            models.Index(fields=["key_id", "-id"], condition=Q(key_id__isnull=False), name="audit_by_key"),
            models.Index(fields=["source", "-id"], condition=~Q(source=""), name="audit_by_source"),
            models.Index(fields=["address", "-id"], condition=~Q(address=""), name="audit_by_address"),
            models.Index(fields=["shell_user", "-id"], condition=~Q(shell_user=""), name="audit_by_shell_user"),
        ]

    def __str__(self) -> str:
        return f"{self.subject_table} {self.subject_id} {self.action}"
