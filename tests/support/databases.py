"""Databases of tests beside the session's own. To migrate one takes seconds, and to copy one that is migrated none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
from django.db import connection
from django.db.backends.base.creation import TEST_DATABASE_PREFIX
from psycopg.sql import SQL, Composed, Identifier

_migrated: list[str] = []


def has_own_database() -> bool:
    """Say whether pytest-django has made a database for this session: it makes none where no test asks for one."""
    return str(connection.settings_dict["NAME"]).startswith(TEST_DATABASE_PREFIX)


@contextmanager
def migrated_copy() -> Iterator[None]:
    """Keep a copy of the session's database as it is now, migrated and empty, for `create_database`."""
    own = connection.settings_dict["NAME"]
    connection.close()  # Postgres copies only what nobody uses.
    copy = f"{own}_migrated"
    _run(os.environ["DATABASE_URL"], SQL("DROP DATABASE IF EXISTS {}").format(Identifier(copy)))
    _run(os.environ["DATABASE_URL"], SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(copy), Identifier(own)))
    _migrated.append(copy)
    yield
    _migrated.clear()
    _run(os.environ["DATABASE_URL"], SQL("DROP DATABASE {}").format(Identifier(copy)))


def create_database(name: str, *, is_migrated: bool) -> str:
    """Create a database on the session's Postgres server and return its URL. Where no test has asked for the session's
    own database yet, it is empty in either case.
    """
    statement = SQL("CREATE DATABASE {}").format(Identifier(name))
    if is_migrated and _migrated:
        statement += SQL(" TEMPLATE {}").format(Identifier(_migrated[0]))
    server_url = os.environ["DATABASE_URL"]
    _run(server_url, statement)
    return urlunsplit(urlsplit(server_url)._replace(path="/" + name))


def _run(server_url: str, statement: Composed) -> None:
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(statement)
