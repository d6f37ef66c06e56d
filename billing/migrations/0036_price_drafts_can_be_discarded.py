"""A draft of a price that nobody wants is discarded: by whom, when and why. It is kept, and never changed again.

Safe on a running system: the columns may be empty, and drafts by the version before write none of them.
"""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

FINAL = """
    CREATE TRIGGER discarded_is_final BEFORE UPDATE OR DELETE ON billing_priceversion
        FOR EACH ROW WHEN (OLD.discarded_at IS NOT NULL) EXECUTE FUNCTION ledger_refuse_change();
    CREATE OR REPLACE FUNCTION price_refuse_late_component() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM billing_priceversion WHERE id = NEW.price_version_id
                   AND (approved_at IS NOT NULL OR discarded_at IS NOT NULL)) THEN
            RAISE EXCEPTION 'price version % is decided: corrections are new versions', NEW.price_version_id
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END $$;
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0035_lists_of_mail_and_webhooks"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.AddField(
            model_name="priceversion",
            name="discarded_by",
            field=models.ForeignKey(
                blank=True,
                help_text="The account of who discarded the draft.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddField(
            model_name="priceversion",
            name="discarded_at",
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="priceversion",
            name="discard_reason",
            field=models.CharField(blank=True, db_default="", max_length=500),
        ),
        migrations.AddConstraint(
            model_name="priceversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("discard_reason", ""),
                    ("discarded_at", None),
                    ("discarded_by", None),
                )
                | models.Q(
                    ("approved_at", None),
                    ("discarded_at__isnull", False),
                    ("discarded_by__isnull", False),
                    models.Q(("discard_reason", ""), _negated=True),
                ),
                name="price_version_discarded_by_a_person",
            ),
        ),
        migrations.RunSQL(FINAL, migrations.RunSQL.noop),
    ]
