"""Where two people decided, each can be erased from the text that names both: "person 7, approved by bob@example.org"."""

from django.db import migrations

ERASES = """
    CREATE OR REPLACE FUNCTION erases_a_person(old_row jsonb, new_row jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
        SELECT coalesce(current_setting('crossmodel.erasing', true), '') = 'on' AND NOT EXISTS (
            SELECT 1 FROM jsonb_each(new_row) AS field
            WHERE field.value IS DISTINCT FROM old_row -> field.key
                AND NOT (field.key IN ('actor', 'approved_by', 'changed_by', 'created_by', 'ended_by', 'made_by',
                                       'redeemed_by', 'resolved_by', 'revoked_by')
                         AND (SELECT coalesce(bool_and(coalesce(
                                    before.name = after.name OR (before.name IS NOT NULL
                                        AND after.name ~ '^person [0-9]+$'), false)), false)
                              FROM unnest(string_to_array(old_row ->> field.key, ', approved by '))
                                    WITH ORDINALITY AS before (name, place)
                              FULL JOIN unnest(string_to_array(field.value #>> '{}', ', approved by '))
                                    WITH ORDINALITY AS after (name, place) USING (place))))
    $$;
"""


class Migration(migrations.Migration):
    dependencies = [("billing", "0038_ledger_transactions_are_sealed")]

    operations = [migrations.RunSQL(ERASES, migrations.RunSQL.noop)]
