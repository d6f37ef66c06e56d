"""What Postgres guards of prices: a change of the catalog is always noticed, and an approved price is never edited."""

from django.db import migrations, models

CATALOG_TABLES = [
    "billing_upstream",
    "billing_languagemodel",
    "billing_languagemodelalias",
    "billing_route",
    "billing_priceversion",
    "billing_pricecomponent",
    "billing_organizationpricefactor",
]

# The row is written inside the transaction that changes the catalog, so whoever sees the new version sees the change.
NOTE_CATALOG_CHANGE = """
    CREATE FUNCTION catalog_note_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO billing_catalogversion (id, version) VALUES (1, pg_current_xact_id()::text::bigint)
        ON CONFLICT (id) DO UPDATE SET version = EXCLUDED.version;
        RETURN NULL;
    END $$;
"""
NOTE_CATALOG_CHANGE += "".join(
    f"CREATE TRIGGER note_catalog_change AFTER INSERT OR UPDATE OR DELETE ON {table} "
    f"FOR EACH STATEMENT EXECUTE FUNCTION catalog_note_change();"
    for table in CATALOG_TABLES
)

# Components are immutable since 0002; here follow the version that they belong to, and additions to it.
REFUSE_PRICE_EDIT = """
    CREATE TRIGGER approved_is_immutable BEFORE UPDATE OR DELETE ON billing_priceversion
        FOR EACH ROW WHEN (OLD.approved_at IS NOT NULL) EXECUTE FUNCTION ledger_refuse_change();
    CREATE FUNCTION price_refuse_late_component() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM billing_priceversion WHERE id = NEW.price_version_id AND approved_at IS NOT NULL) THEN
            RAISE EXCEPTION 'price version % is approved: corrections are new versions', NEW.price_version_id
                USING ERRCODE = 'integrity_constraint_violation';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER only_on_drafts BEFORE INSERT ON billing_pricecomponent
        FOR EACH ROW EXECUTE FUNCTION price_refuse_late_component();
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_guards_and_partitions")]

    operations = [
        migrations.CreateModel(
            name="CatalogVersion",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("version", models.BigIntegerField()),
            ],
        ),
        migrations.RunSQL(NOTE_CATALOG_CHANGE, migrations.RunSQL.noop),
        migrations.RunSQL(REFUSE_PRICE_EDIT, migrations.RunSQL.noop),
    ]
