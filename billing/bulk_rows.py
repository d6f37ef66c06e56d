"""Writes many rows in one statement: columns travel to Postgres as arrays, and unnest() makes rows of them again."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from django.db import connection


def insert_rows(table: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]], *, tail: str = "") -> list[Any]:
    """Insert `rows` and return what `tail` (ON CONFLICT, RETURNING) gives back, a list of tuples.

    `columns` maps a column to its Postgres type. Table, columns and tail are constants of the program, never input.
    """
    return run_rows(f"INSERT INTO {table} ({', '.join(columns)}) SELECT * FROM {{rows}} {tail}", columns, rows)


def run_rows(sql: str, columns: Mapping[str, str], rows: Iterable[Sequence[Any]]) -> list[Any]:
    """Run one statement in which `{rows}` stands for a row source `given` with these columns."""
    arrays = [list(column) for column in zip(*rows, strict=True)]
    if not arrays:
        return []
    unnest = f"unnest({', '.join(f'%s::{kind}[]' for kind in columns.values())}) AS given({', '.join(columns)})"
    with connection.cursor() as cursor:
        cursor.execute(sql.replace("{rows}", unnest), arrays)
        return cursor.fetchall() if cursor.description else []


def fetch_all(sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
    """Return all rows of one statement, or nothing for a statement that gives none."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []
