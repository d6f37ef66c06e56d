"""Writes many rows in one statement: columns travel to Postgres as arrays, and unnest() makes rows of them again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connection

# Types whose values, as text, need no quoting inside an array. Postgres still checks each of them.
PLAIN_TYPES = {"bigint", "integer", "smallint", "uuid"}


def insert_rows(table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]], *, tail: str = "") -> list[Any]:
    """Insert `rows` and return what `tail` (ON CONFLICT, RETURNING) gives back, a list of tuples.

    `columns` maps a column to its Postgres type. Table, columns and tail are constants of the program, never input.
    """
    # The statement is made of the program's own constants.
    statement = f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {{rows}} {tail}"  # noqa: S608
    return run_rows(statement, columns, rows)


def run_rows(sql: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Run one statement in which `{rows}` stands for a row source `given` with these columns."""
    arrays = [_array(kind, values) for kind, values in zip(columns.values(), zip(*rows, strict=True), strict=False)]
    if not arrays:
        return []
    unnest = f"unnest({', '.join(f'%s::{kind}[]' for kind in columns.values())}) AS given({', '.join(columns)})"
    with connection.cursor() as cursor:
        cursor.execute(sql.replace("{rows}", unnest), arrays)
        return cursor.fetchall() if cursor.description else []


def _array(kind: str, values: Sequence[Any]) -> str | list[Any]:
    """Return a column as Postgres takes it. Numbers and texts are written here: many times as fast as by the driver."""
    if kind in PLAIN_TYPES:
        return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"
    if kind == "text":
        return "{" + ",".join(["NULL" if value is None else _quote(value) for value in values]) + "}"
    return list(values)


def _quote(text: str) -> str:
    """Return an element of a text array. Inside its quotes only quotes and backslashes mean anything else."""
    if "\\" in text or '"' in text:
        text = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def fetch_all(sql: str, parameters: Sequence[Any] | Mapping[str, Any] | None = None) -> list[Any]:
    """Return all rows of one statement, or nothing for one that gives none. Without parameters `%` is only a sign."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []
