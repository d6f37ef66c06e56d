"""How long details are kept; and the one change that guarded rows take: a person's name becomes `person <number>`.

Who erases says so (`crossmodel.erasing`) for its transaction. Even then nothing but a text that names who did something
can change, and only into that form; amounts, ids and times stay out of reach. The audit keeps no line of it, which
would hold the name again.
"""

import django.db.models.deletion
import django.utils.timezone
from django.db import migrations, models

ERASES = """
    CREATE FUNCTION erases_a_person(old_row jsonb, new_row jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
        SELECT coalesce(current_setting('crossmodel.erasing', true), '') = 'on' AND NOT EXISTS (
            SELECT 1 FROM jsonb_each(new_row) AS field
            WHERE field.value IS DISTINCT FROM old_row -> field.key
                AND NOT (field.key IN ('actor', 'approved_by', 'changed_by', 'created_by', 'ended_by', 'made_by',
                                       'redeemed_by', 'resolved_by', 'revoked_by')
                         AND field.value #>> '{}' ~ '^person [0-9]+$'))
    $$;
    CREATE OR REPLACE FUNCTION ledger_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' AND erases_a_person(to_jsonb(OLD), to_jsonb(NEW)) THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION '% is immutable: corrections are new rows', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END $$;
    CREATE OR REPLACE FUNCTION ledger_refuse_other_terms() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' AND erases_a_person(to_jsonb(OLD), to_jsonb(NEW)) THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'the terms of a row of % are fixed: corrections are new rows', TG_TABLE_NAME
            USING ERRCODE = 'integrity_constraint_violation';
    END $$;
    CREATE OR REPLACE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'TRUNCATE' AND coalesce(current_setting('crossmodel.may_truncate', true), '') = 'on' THEN
            RETURN NULL;
        END IF;
        IF TG_OP = 'UPDATE' AND coalesce(current_setting('crossmodel.erasing', true), '') = 'on'
                AND to_jsonb(NEW) - 'before' - 'after' = to_jsonb(OLD) - 'before' - 'after' THEN
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'the audit is only added to' USING ERRCODE = 'integrity_constraint_violation';
    END $$;
    CREATE OR REPLACE FUNCTION audit_note() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        ignored text[] := string_to_array(TG_ARGV[2], ',');
        hidden text[] := string_to_array(TG_ARGV[3], ',');
        old_row jsonb := CASE WHEN TG_OP = 'INSERT' THEN '{}' ELSE to_jsonb(OLD) - ignored END;
        new_row jsonb := CASE WHEN TG_OP = 'DELETE' THEN '{}' ELSE to_jsonb(NEW) - ignored END;
        whole jsonb := CASE WHEN TG_OP = 'DELETE' THEN old_row ELSE new_row END;
        was jsonb;
        is_now jsonb;
    BEGIN
        IF old_row = new_row OR (TG_OP = 'UPDATE' AND erases_a_person(to_jsonb(OLD), to_jsonb(NEW))) THEN
            RETURN NULL;
        END IF;
        SELECT jsonb_object_agg(key, CASE WHEN key = ANY (hidden) AND value <> 'null' AND value <> '""'
                                          THEN '"(hidden)"' ELSE value END)
            INTO was FROM jsonb_each(old_row) WHERE new_row -> key IS DISTINCT FROM value;
        SELECT jsonb_object_agg(key, CASE WHEN key = ANY (hidden) AND value <> 'null' AND value <> '""'
                                          THEN '"(hidden)"' ELSE value END)
            INTO is_now FROM jsonb_each(new_row) WHERE old_row -> key IS DISTINCT FROM value;
        INSERT INTO accounts_auditentry (action, subject_table, subject_id, organization_id, before, after)
            VALUES (CASE TG_OP WHEN 'INSERT' THEN 'created' WHEN 'UPDATE' THEN 'changed' ELSE 'deleted' END,
                    TG_TABLE_NAME, whole ->> TG_ARGV[0], (whole ->> nullif(TG_ARGV[1], ''))::bigint, was, is_now);
        RETURN NULL;
    END $$;
    SELECT audit_watch('billing_dataretention', 'organization_id', 'organization_id', 'erased_before,changed_at', '');
"""


class Migration(migrations.Migration):
    dependencies = [
        ("accounts", "0009_budgets_that_only_notify"),
        ("billing", "0024_approvals"),
    ]

    operations = [
        migrations.CreateModel(
            name="DataRetention",
            fields=[
                (
                    "organization",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="data_retention",
                        serialize=False,
                        to="accounts.organization",
                    ),
                ),
                ("details_days", models.PositiveIntegerField(blank=True, null=True)),
                ("erased_before", models.DateField(editable=False, null=True)),
                ("changed_by", models.CharField(help_text="The actor.", max_length=254)),
                ("changed_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "verbose_name": "data retention",
                "verbose_name_plural": "data retention",
            },
        ),
        migrations.RunSQL(ERASES, migrations.RunSQL.noop),
    ]
