"""Who answers for each row of the catalog. What the audit says was made on a page is the operators'; the rest came of files."""

from django.db import migrations, models

TABLES = ("upstream", "languagemodel", "languagemodelalias", "route")
OF_FILES = """
    UPDATE billing_{table} SET catalog_file = 'an earlier file' WHERE NOT EXISTS (
        SELECT FROM accounts_auditentry WHERE subject_table = 'billing_{table}' AND action = 'created'
            AND subject_id = billing_{table}.id::text AND source LIKE 'POST /%');
"""


def column() -> models.CharField:
    return models.CharField(
        blank=True,
        db_default="",
        default="",
        editable=False,
        help_text="The catalog file that named it last; empty when it was entered here.",
        max_length=200,
    )


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0030_prices_by_two_accounts"),
    ]

    operations = [
        *(migrations.AddField(model_name=table, name="catalog_file", field=column()) for table in TABLES),
        migrations.RunSQL("".join(OF_FILES.format(table=table) for table in TABLES), migrations.RunSQL.noop),
    ]
