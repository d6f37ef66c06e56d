"""What Postgres itself guards: sums of transactions, immutability, tenancy of entries, and partitions of usage.

The partitions of the months are made by housekeeping (billing/partitions.py); until then the default one takes all.
"""

from django.db import migrations

IMMUTABLE_TABLES = [
    "billing_ledgertransaction",
    "billing_ledgerentry",
    "billing_creditlotentry",
    "billing_usagerecord",
    "billing_pricecomponent",
]

PARTITION_USAGE = """
    ALTER TABLE billing_usagerecord RENAME TO billing_usagerecord_plain;
    CREATE TABLE billing_usagerecord (LIKE billing_usagerecord_plain INCLUDING DEFAULTS) PARTITION BY RANGE (request_id);
    DROP TABLE billing_usagerecord_plain;
    ALTER TABLE billing_usagerecord ADD CONSTRAINT billing_usagerecord_pkey PRIMARY KEY (request_id);
    CREATE INDEX usage_by_organization ON billing_usagerecord (organization_id, request_id DESC);
    CREATE INDEX usage_by_transaction ON billing_usagerecord (ledger_transaction_id);
    CREATE TABLE billing_usagerecord_default PARTITION OF billing_usagerecord DEFAULT;
"""

# Deferred: all entries of a transaction are there when it is judged, at COMMIT.
SUM_TO_ZERO = """
    CREATE FUNCTION ledger_refuse_unbalanced() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE total numeric;
    BEGIN
        SELECT sum(amount_nanos) INTO total FROM billing_ledgerentry WHERE transaction_id = NEW.transaction_id;
        IF total <> 0 THEN
            RAISE EXCEPTION 'ledger transaction % does not sum to zero but to %', NEW.transaction_id, total
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NULL;
    END $$;
    CREATE CONSTRAINT TRIGGER ledger_sums_to_zero AFTER INSERT ON billing_ledgerentry
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION ledger_refuse_unbalanced();
"""

ONE_ORGANIZATION = """
    CREATE FUNCTION ledger_refuse_foreign_account() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (
            SELECT 1 FROM billing_ledgeraccount a, billing_ledgertransaction t
            WHERE a.id = NEW.account_id AND t.id = NEW.transaction_id
              AND a.organization_id IS NOT NULL AND a.organization_id IS DISTINCT FROM t.organization_id
        ) THEN
            RAISE EXCEPTION 'ledger transaction % may not touch account % of another organization',
                NEW.transaction_id, NEW.account_id USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER ledger_one_organization BEFORE INSERT ON billing_ledgerentry
        FOR EACH ROW EXECUTE FUNCTION ledger_refuse_foreign_account();
"""

REFUSE_CHANGE = """
    CREATE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% is immutable: corrections are new rows', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END $$;
""" + "".join(
    f"CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION ledger_refuse_change();"
    for table in IMMUTABLE_TABLES
)


class Migration(migrations.Migration):
    dependencies = [("billing", "0001_initial")]

    operations = [
        migrations.RunSQL(PARTITION_USAGE, migrations.RunSQL.noop),
        migrations.RunSQL(SUM_TO_ZERO, migrations.RunSQL.noop),
        migrations.RunSQL(ONE_ORGANIZATION, migrations.RunSQL.noop),
        migrations.RunSQL(REFUSE_CHANGE, migrations.RunSQL.noop),
    ]
