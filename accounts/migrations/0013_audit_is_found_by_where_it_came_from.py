"""What the audit is searched by: where a change came from. Made while entries are written."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("accounts", "0012_former_slugs")]

    operations = [
        AddIndexConcurrently("auditentry", models.Index(fields=["subject_table", "-id"], name="audit_by_table")),
        AddIndexConcurrently("auditentry", models.Index(fields=["action", "-id"], name="audit_by_action")),
        AddIndexConcurrently(
            "auditentry",
            models.Index(
                fields=["key_id", "-id"],
                condition=models.Q(("key_id__isnull", False)),
                name="audit_by_key",
            ),
        ),
        AddIndexConcurrently(
            "auditentry",
            models.Index(
                fields=["source", "-id"],
                condition=models.Q(("source", ""), _negated=True),
                name="audit_by_source",
            ),
        ),
        AddIndexConcurrently(
            "auditentry",
            models.Index(
                fields=["address", "-id"],
                condition=models.Q(("address", ""), _negated=True),
                name="audit_by_address",
            ),
        ),
        AddIndexConcurrently(
            "auditentry",
            models.Index(
                fields=["shell_user", "-id"],
                condition=models.Q(("shell_user", ""), _negated=True),
                name="audit_by_shell_user",
            ),
        ),
    ]
