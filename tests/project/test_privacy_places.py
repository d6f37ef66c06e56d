"""Every table of organizations says what becomes of it when one is erased."""

import pytest
from django.apps import apps
from django.db import connection

from billing.privacy.places import ACTOR_COLUMNS, OF_ORGANIZATION


@pytest.mark.django_db
def test_every_table_of_organizations_has_its_answer() -> None:
    """A new table with an organization's column stands in billing/privacy/places.py, or a person would be forgotten."""
    tables = {"accounts_organization"}
    for label in ("accounts", "api", "billing", "console", "gateway", "operations"):
        for model in apps.get_app_config(label).get_models():
            if any(field.column == "organization_id" for field in model._meta.concrete_fields):
                tables.add(model._meta.db_table)
    assert set(OF_ORGANIZATION) == tables
    with connection.cursor() as cursor:
        cursor.execute("SELECT prosrc FROM pg_proc WHERE proname = 'erases_a_person'")
        source = cursor.fetchone()[0]
    assert all(f"'{column}'" in source for column in ACTOR_COLUMNS), "Postgres lets the same columns be erased."
