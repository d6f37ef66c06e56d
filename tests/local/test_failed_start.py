"""A `make run` that cannot start says why in one line, ends with 1 and leaves nothing behind."""

import socket
from pathlib import Path

import psycopg
import pytest

from crossmodel_site.embedded import PostgresServer, find_free_port
from tests.support.local_run import start_and_fail


def test_a_busy_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        port = find_free_port()
        holder.bind(("127.0.0.1", port))
        holder.listen()
        complaint = start_and_fail(tmp_path / "var", {"PORT": str(port)})
    assert complaint == f"Port {port} is taken; choose another: PORT={port + 1} make run"


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    """A file stands where the folder should be, which stops root too."""
    (tmp_path / "file").touch()
    complaint = start_and_fail(tmp_path / "file" / "var", {})
    assert complaint == (
        f"The data folder {tmp_path}/file/var cannot be written (Not a directory); set CROSSMODEL_DATA to another."
    )


@pytest.mark.long
def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    postgres = PostgresServer(tmp_path / "postgres", durable=False)
    postgres.start()
    try:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE blog_post (id int); CREATE TABLE blog_author (id int)")
        complaint = start_and_fail(tmp_path / "var", {"DATABASE_URL": postgres.url})
        assert complaint == (
            "DATABASE_URL names a database of another program: it has the table blog_author and 1 more. "
            "Name an empty one, or unset DATABASE_URL to use a Postgres of this run."
        )
        with psycopg.connect(postgres.url) as connection:
            tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    finally:
        postgres.stop()
    assert sorted(tables) == [("blog_author",), ("blog_post",)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("PORT", "eighty", "PORT must be a whole number; it is 'eighty'."),
        ("DATABASE_URL", "mysql://localhost/x", "DATABASE_URL must start with postgresql://; it starts with 'mysql'."),
        ("DATABASE_URL", "postgresql://me:hidden-word@127.0.0.1:1/x", "DATABASE_URL does not work: connection failed"),
        ("DATABASE_URL", "postgresql://127.0.0.1:1/x?no=such", "DATABASE_URL does not work: invalid connection option"),
        ("REDIS_URL", "redis://:hidden-word@127.0.0.1:1/0", "REDIS_URL does not work: "),
        ("CELERY_BROKER_URL", "redis://127.0.0.1:1/0", "CELERY_BROKER_URL does not work: "),
        ("CELERY_BROKER_URL", "localhost:6379", "CELERY_BROKER_URL must be an address such as redis://"),
        ("CROSSMODEL_HOST", "no-such-host.invalid", "CrossModel cannot listen on no-such-host.invalid, port "),
        ("CROSSMODEL_HOST", "192.0.2.1", "CrossModel cannot listen on 192.0.2.1, port "),
        ("CROSSMODEL_BASE_URL", "example.org", "CROSSMODEL_BASE_URL must be an address such as https://"),
        ("CROSSMODEL_BASE_URL", "https://example.org/api", "CROSSMODEL_BASE_URL must be an address such as https://"),
        ("CROSSMODEL_TRUSTED_PROXIES", "10.0.0.1, proxy", "CROSSMODEL_TRUSTED_PROXIES must list addresses and"),
        ("CROSSMODEL_WELCOME_CREDIT_USD", "five", "CROSSMODEL_WELCOME_CREDIT_USD must be an amount in US dollars"),
        ("CROSSMODEL_WELCOME_CREDIT_USD", "-5", "CROSSMODEL_WELCOME_CREDIT_USD must lie between 0 and"),
        ("CROSSMODEL_LOG_LEVEL", "LOUD", "CROSSMODEL_LOG_LEVEL must be one of DEBUG, INFO, WARNING, ERROR"),
        ("CROSSMODEL_EMAIL_SECURITY", "ssl", "CROSSMODEL_EMAIL_SECURITY must be one of none, starttls, tls"),
        ("CROSSMODEL_FROM_EMAIL", "CrossModel", "CROSSMODEL_FROM_EMAIL must hold an address"),
        ("CROSSMODEL_CATALOG", "/no/such/file.toml", "/no/such/file.toml cannot be read"),
    ],
)
def test_a_wrong_setting_is_named_without_its_password(
    tmp_path: Path, variable: str, value: str, complaint: str
) -> None:
    line = start_and_fail(tmp_path / "var", {variable: value})
    assert line.startswith(complaint)
    assert "hidden-word" not in line
