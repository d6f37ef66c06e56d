"""The audit, written by triggers, and what Postgres itself guards of it.

`audit_watch` is called by later migrations too: table, its id column, its organization column ('' for none), columns whose
changes are of no interest, columns whose values are never kept.
"""

import django.db.models.functions.datetime
from django.db import migrations, models

# Where a change comes from is told in front of the statement that makes it (accounts/audit.py), for one transaction.
FILL = """
    CREATE FUNCTION audit_fill() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE told jsonb := nullif(current_setting('crossmodel.audit', true), '')::jsonb;
    BEGIN
        NEW.at := clock_timestamp();
        NEW.actor_id := (told ->> 'actor')::bigint;
        NEW.key_id := (told ->> 'key')::bigint;
        NEW.address := coalesce(told ->> 'address', '');
        NEW.source := coalesce(told ->> 'source', '');
        NEW.shell_user := coalesce(told ->> 'shell_user', '');
        NEW.database_user := session_user;
        RETURN NEW;
    END $$;
    CREATE TRIGGER filled BEFORE INSERT ON accounts_auditentry FOR EACH ROW EXECUTE FUNCTION audit_fill();
"""

REFUSE = """
    CREATE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'TRUNCATE' AND coalesce(current_setting('crossmodel.may_truncate', true), '') = 'on' THEN
            RETURN NULL;
        END IF;
        RAISE EXCEPTION 'the audit is only added to' USING ERRCODE = 'integrity_constraint_violation';
    END $$;
    CREATE TRIGGER immutable BEFORE UPDATE OR DELETE ON accounts_auditentry
        FOR EACH ROW EXECUTE FUNCTION audit_refuse_change();
    CREATE TRIGGER never_emptied BEFORE TRUNCATE ON accounts_auditentry EXECUTE FUNCTION audit_refuse_change();
"""

NOTE = """
    CREATE FUNCTION audit_note() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        ignored text[] := string_to_array(TG_ARGV[2], ',');
        hidden text[] := string_to_array(TG_ARGV[3], ',');
        old_row jsonb := CASE WHEN TG_OP = 'INSERT' THEN '{}' ELSE to_jsonb(OLD) - ignored END;
        new_row jsonb := CASE WHEN TG_OP = 'DELETE' THEN '{}' ELSE to_jsonb(NEW) - ignored END;
        whole jsonb := CASE WHEN TG_OP = 'DELETE' THEN old_row ELSE new_row END;
        was jsonb;
        is_now jsonb;
    BEGIN
        IF old_row = new_row THEN
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
    CREATE FUNCTION audit_watch(watched text, id_column text, organization_column text, ignored text, hidden text)
        RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        EXECUTE format('CREATE TRIGGER audited AFTER INSERT OR UPDATE OR DELETE ON %I'
            ' FOR EACH ROW EXECUTE FUNCTION audit_note(%L, %L, %L, %L)',
            watched, id_column, organization_column, ignored, hidden);
    END $$;
"""

# A person's own texts are not kept: the row tells who it was, until the person asks to be forgotten.
WATCH = """
    SELECT audit_watch('accounts_organization', 'id', 'id', 'config_version', '');
    SELECT audit_watch('accounts_member', 'id', 'organization_id', '', '');
    SELECT audit_watch('accounts_apikey', 'id', 'organization_id', 'config_version', 'secret_sha256');
    SELECT audit_watch('accounts_temporarysecret', 'id', '', '', 'secret_sha256');
    SELECT audit_watch('accounts_invitation', 'id', 'organization_id', '', 'token_sha256,email');
    SELECT audit_watch('accounts_user', 'id', '', 'last_login', 'password,email,name');
    SELECT audit_watch('accounts_user_groups', 'id', '', '', '');
    SELECT audit_watch('accounts_user_user_permissions', 'id', '', '', '');
    SELECT audit_watch('auth_group_permissions', 'id', '', '', '');
    SELECT audit_watch('accounts_billingdetails', 'organization_id', 'organization_id', '',
        'legal_name,address_line_1,address_line_2,postal_code,city,region');
"""


class Migration(migrations.Migration):
    dependencies = [("accounts", "0007_key_roles_and_secrets"), ("auth", "0012_alter_user_first_name_max_length")]

    operations = [
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                (
                    "at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now(), editable=False),
                ),
                (
                    "action",
                    models.CharField(help_text="created, changed, deleted, or what an operator did.", max_length=40),
                ),
                ("subject_table", models.CharField(max_length=63)),
                ("subject_id", models.CharField(max_length=64)),
                (
                    "organization_id",
                    models.BigIntegerField(help_text="Whose audit it stands in, too.", null=True),
                ),
                ("before", models.JSONField(null=True)),
                ("after", models.JSONField(null=True)),
                ("actor_id", models.BigIntegerField(help_text="The user who did it.", null=True)),
                ("key_id", models.BigIntegerField(help_text="The API key that it was done with.", null=True)),
                ("address", models.CharField(db_default="", max_length=45)),
                (
                    "source",
                    models.CharField(db_default="", help_text="The page, command or job.", max_length=200),
                ),
                (
                    "shell_user",
                    models.CharField(
                        db_default="", help_text="The operating system's user of a command.", max_length=64
                    ),
                ),
                ("database_user", models.CharField(db_default="", max_length=63)),
            ],
            options={
                "ordering": ["-id"],
                "verbose_name": "audit entry",
                "verbose_name_plural": "audit",
                "indexes": [
                    models.Index(
                        condition=models.Q(("organization_id__isnull", False)),
                        fields=["organization_id", "-id"],
                        name="audit_by_organization",
                    ),
                    models.Index(
                        condition=models.Q(("actor_id__isnull", False)),
                        fields=["actor_id", "-id"],
                        name="audit_by_actor",
                    ),
                    models.Index(fields=["subject_table", "subject_id", "-id"], name="audit_by_subject"),
                ],
            },
        ),
        migrations.RunSQL(FILL, migrations.RunSQL.noop),
        migrations.RunSQL(REFUSE, migrations.RunSQL.noop),
        migrations.RunSQL(NOTE, migrations.RunSQL.noop),
        migrations.RunSQL(WATCH, migrations.RunSQL.noop),
    ]
