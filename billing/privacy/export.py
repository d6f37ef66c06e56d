"""Everything that is kept of an organization, or of a person, as lines of JSON: one for each row, with its table."""

import json
from collections.abc import Iterator
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection

from accounts.models import Organization, User
from billing.privacy.erasure import actor_places, naming
from billing.privacy.places import NEVER_EXPORTED, OF_ORGANIZATION

ROWS_AT_ONCE = 2_000
ACCOUNT_COLUMNS = {"accounts_organization": "id"}
OF_PERSON = {
    "accounts_user": "id",
    "accounts_member": "user_id",
    "account_emailaddress": "user_id",
    "accounts_apikey": "created_by_id",
    "billing_outgoingmail": "user_id",
    "accounts_auditentry": "actor_id",
}


def export_organization(organization: Organization) -> Iterator[str]:
    """Yield a line for each row of the organization, table by table, with flat memory. Secrets are left out."""
    for table in OF_ORGANIZATION:
        column = ACCOUNT_COLUMNS.get(table, "organization_id")
        yield from _rows(table, f'"{column}" = %s', [organization.pk])


def export_person(user: User) -> Iterator[str]:
    """Yield a line for each row that is about the person, or names them as who did something."""
    for table, column in OF_PERSON.items():
        yield from _rows(table, f'"{column}" = %s', [user.pk])
    for table, column in actor_places():
        yield from _rows(table, *naming(column, user.email))


def _rows(table: str, where: str, values: list[Any]) -> Iterator[str]:
    """Read through a cursor of Postgres' own, so that a million rows are never here at once. Within a transaction."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(f'SELECT * FROM "{table}" WHERE {where}', values)  # noqa: S608  Names of ours.
        while rows := cursor.fetchmany(ROWS_AT_ONCE):
            names = [column[0] for column in cursor.description]
            for row in rows:
                fields = {name: value for name, value in zip(names, row, strict=True) if name not in NEVER_EXPORTED}
                yield json.dumps({"table": table, **fields}, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return str(value)
