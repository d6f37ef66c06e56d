"""Ledger transactions carry a seal of all that they were written with, and of who did it; models keep their ids.

Records name the model that was used by its id: one that was used is not called otherwise.

Safe on a running system: the new column may be empty, and processes of the version before write none.
"""

import django.utils.timezone
from django.db import migrations, models

GUARD = """
    CREATE TRIGGER kept BEFORE DELETE ON billing_ledgersealkey
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_ledgersealkey FOR EACH ROW
        WHEN (ROW(OLD.id, OLD.created_at, OLD.after_transaction_id) IS DISTINCT FROM
              ROW(NEW.id, NEW.created_at, NEW.after_transaction_id))
        EXECUTE FUNCTION ledger_refuse_other_terms();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_ledgersealkey EXECUTE FUNCTION ledger_refuse_truncate();
    CREATE FUNCTION catalog_refuse_other_id() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM billing_usageday WHERE model_id = OLD.model_id) THEN
            RAISE EXCEPTION 'model % was used: it keeps its id', OLD.model_id
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER id_is_fixed BEFORE UPDATE ON billing_languagemodel FOR EACH ROW
        WHEN (OLD.model_id IS DISTINCT FROM NEW.model_id) EXECUTE FUNCTION catalog_refuse_other_id();
"""
NO_GUARD = """
    DROP TRIGGER kept ON billing_ledgersealkey;
    DROP TRIGGER terms_are_fixed ON billing_ledgersealkey;
    DROP TRIGGER never_emptied ON billing_ledgersealkey;
    DROP TRIGGER id_is_fixed ON billing_languagemodel;
    DROP FUNCTION catalog_refuse_other_id();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0037_what_waits_and_discounts_stay")]
    operations = [
        migrations.CreateModel(
            name="LedgerSealKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("sealed_key", models.CharField(max_length=200)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("after_transaction_id", models.BigIntegerField(default=0)),
            ],
        ),
        migrations.AddField(
            model_name="ledgertransaction",
            name="seal",
            field=models.BinaryField(
                help_text="Of all that it was written with; empty in older transactions.", max_length=32, null=True
            ),
        ),
        migrations.RunSQL(GUARD, NO_GUARD),
    ]
