"""What was written stays: transactions keep their entries, lots and accounts their terms, requests their ends.

Safe on a running system: the new column may be empty, and workers of the version before write none.
"""

from django.db import migrations, models

# Besides the sum, the number of entries: nothing is added to a transaction later, however well it balances.
WHOLE_TRANSACTIONS = """
    CREATE OR REPLACE FUNCTION ledger_refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE total numeric; entries bigint; written bigint;
    BEGIN
        SELECT sum(amount_nanos), count(*) INTO total, entries
            FROM billing_ledgerentry WHERE transaction_id = NEW.transaction_id;
        IF total <> 0 THEN
            RAISE EXCEPTION 'ledger transaction % does not sum to zero but to %', NEW.transaction_id, total
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        SELECT entry_count INTO written FROM billing_ledgertransaction WHERE id = NEW.transaction_id;
        IF written <> entries THEN
            RAISE EXCEPTION 'ledger transaction % is written with % entries and has %', NEW.transaction_id, written, entries
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NULL;
    END $$;
"""

FIXED_TERMS = """
    CREATE FUNCTION ledger_refuse_other_terms() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION 'the terms of a row of % are fixed: corrections are new rows', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END $$;
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_creditlot FOR EACH ROW
        WHEN (ROW(OLD.id, OLD.organization_id, OLD.kind, OLD.origin, OLD.amount_nanos, OLD.priority, OLD.expires_at,
                  OLD.created_at) IS DISTINCT FROM
              ROW(NEW.id, NEW.organization_id, NEW.kind, NEW.origin, NEW.amount_nanos, NEW.priority, NEW.expires_at,
                  NEW.created_at))
        EXECUTE FUNCTION ledger_refuse_other_terms();
    CREATE TRIGGER terms_are_fixed BEFORE UPDATE ON billing_ledgeraccount FOR EACH ROW
        WHEN (ROW(OLD.id, OLD.organization_id, OLD.kind, OLD.shard, OLD.payment_provider) IS DISTINCT FROM
              ROW(NEW.id, NEW.organization_id, NEW.kind, NEW.shard, NEW.payment_provider))
        EXECUTE FUNCTION ledger_refuse_other_terms();
    CREATE TRIGGER kept BEFORE DELETE ON billing_creditlot
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER kept BEFORE DELETE ON billing_ledgeraccount
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
    CREATE TRIGGER kept BEFORE DELETE ON billing_organizationbalance
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
"""

# A failed request goes only where a usage record of it has come: what reached a client is paid for.
KEPT_FAILURES = """
    CREATE FUNCTION usage_refuse_lost_failure() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NOT EXISTS (SELECT 1 FROM billing_usagerecord WHERE request_id = OLD.request_id) THEN
            RAISE EXCEPTION 'failed request % has no usage record that replaces it', OLD.request_id
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN OLD;
    END $$;
    CREATE TRIGGER kept BEFORE DELETE ON billing_failedrequest
        FOR EACH ROW EXECUTE FUNCTION usage_refuse_lost_failure();
    CREATE TRIGGER immutable BEFORE UPDATE ON billing_failedrequest
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();
"""

# Counted by triggers, so that workers of any version count; what was there before is counted once, under a lock.
COUNTED_FAILURES = """
    CREATE FUNCTION usage_count_failures() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO billing_failedday AS counted (organization_id, admitted_day, requests)
            SELECT organization_id, floor(extract(epoch FROM admitted_at) / 86400)::int,
                CASE TG_OP WHEN 'INSERT' THEN count(*) ELSE -count(*) END
            FROM changed GROUP BY 1, 2 ORDER BY 1, 2
            ON CONFLICT (organization_id, admitted_day) DO UPDATE SET requests = counted.requests + EXCLUDED.requests;
        RETURN NULL;
    END $$;
    LOCK TABLE billing_failedrequest IN SHARE ROW EXCLUSIVE MODE;
    INSERT INTO billing_failedday (organization_id, admitted_day, requests)
        SELECT organization_id, floor(extract(epoch FROM admitted_at) / 86400)::int, count(*)
        FROM billing_failedrequest GROUP BY 1, 2;
    CREATE TRIGGER counted_in AFTER INSERT ON billing_failedrequest REFERENCING NEW TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION usage_count_failures();
    CREATE TRIGGER counted_out AFTER DELETE ON billing_failedrequest REFERENCING OLD TABLE AS changed
        FOR EACH STATEMENT EXECUTE FUNCTION usage_count_failures();
"""

NEVER_EMPTIED = [
    "billing_creditlot",
    "billing_creditlotentry",
    "billing_failedday",
    "billing_failedrequest",
    "billing_ledgeraccount",
    "billing_ledgerentry",
    "billing_ledgertransaction",
    "billing_organizationbalance",
    "billing_pricecomponent",
    "billing_priceversion",
    "billing_reratedrequest",
    "billing_rerating",
    "billing_usagerecord",
]
# Tests empty their database so, and set the variable in its connections.
REFUSE_TRUNCATE = """
    CREATE FUNCTION ledger_refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF coalesce(current_setting('crossmodel.may_truncate', true), '') <> 'on' THEN
            RAISE EXCEPTION '% is never emptied', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NULL;
    END $$;
""" + "".join(
    f"CREATE TRIGGER never_emptied BEFORE TRUNCATE ON {table} EXECUTE FUNCTION ledger_refuse_truncate();"
    for table in NEVER_EMPTIED
)
REFUSE_TRUNCATE += """
    DO $$
    DECLARE partition regclass;
    BEGIN
        FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'billing_usagerecord'::regclass LOOP
            EXECUTE format(
                'CREATE TRIGGER never_emptied BEFORE TRUNCATE ON %s EXECUTE FUNCTION ledger_refuse_truncate()', partition);
        END LOOP;
    END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0006_quarantine_resolution")]

    operations = [
        migrations.AddField(
            model_name="ledgertransaction",
            name="entry_count",
            field=models.PositiveSmallIntegerField(
                editable=False,
                help_text="How many entries it was written with; empty in older transactions.",
                null=True,
            ),
        ),
        migrations.CreateModel(
            name="FailedDay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("organization_id", models.BigIntegerField()),
                ("admitted_day", models.IntegerField()),
                ("requests", models.BigIntegerField(default=0)),
            ],
            options={
                "ordering": ["-admitted_day"],
                "constraints": [
                    models.UniqueConstraint(fields=("organization_id", "admitted_day"), name="failed_day_once"),
                ],
            },
        ),
        migrations.RunSQL(WHOLE_TRANSACTIONS, migrations.RunSQL.noop),
        migrations.RunSQL(FIXED_TERMS, migrations.RunSQL.noop),
        migrations.RunSQL(KEPT_FAILURES, migrations.RunSQL.noop),
        migrations.RunSQL(COUNTED_FAILURES, migrations.RunSQL.noop),
        migrations.RunSQL(REFUSE_TRUNCATE, migrations.RunSQL.noop),
    ]
