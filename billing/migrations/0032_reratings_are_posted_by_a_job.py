"""Re-ratings know who decided them, and approvals when all of theirs was posted. Until now that was at once."""

import django.db.models.deletion
from django.db import migrations, models

POSTED_AT_ONCE = """
    UPDATE billing_approval SET finished_at = decided_at WHERE kind = 'rerating' AND state = 'applied';
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0031_whose_the_catalog_rows_are")]

    operations = [
        migrations.AddField(
            model_name="approval",
            name="finished_at",
            field=models.DateTimeField(help_text="Of a re-rating: when the last of it was posted.", null=True),
        ),
        migrations.AddField(
            model_name="rerating",
            name="approval",
            field=models.ForeignKey(
                help_text="Who decided it. One that was cut short is gone on with by a run of its own.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="reratings",
                to="billing.approval",
            ),
        ),
        migrations.AddIndex(
            model_name="approval",
            index=models.Index(
                condition=models.Q(("finished_at", None), ("kind", "rerating"), ("state", "applied")),
                fields=["id"],
                name="approval_to_post",
            ),
        ),
        migrations.RunSQL(POSTED_AT_ONCE, migrations.RunSQL.noop),
    ]
