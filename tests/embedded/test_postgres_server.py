"""The embedded Postgres: it keeps what it acknowledged, comes back after kill -9, and lets nobody in unasked."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from crossmodel_site.embedded import PostgresServer, ServerError, find_free_port


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    yield server
    server.stop()


def run_sql(server: PostgresServer, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def test_is_durable_and_unicode_by_default(postgres: PostgresServer) -> None:
    assert run_sql(postgres, "SHOW fsync") == [("on",)]
    assert run_sql(postgres, "SHOW synchronous_commit") == [("on",)]
    assert run_sql(postgres, "SHOW full_page_writes") == [("on",)]
    assert run_sql(postgres, "SHOW server_encoding") == [("UTF8",)]


def test_comes_back_on_the_same_address_after_kill_minus_nine(postgres: PostgresServer) -> None:
    run_sql(postgres, "CREATE TABLE seen (number int)")
    url = postgres.url
    for _ in range(3):
        run_sql(postgres, "INSERT INTO seen SELECT count(*) FROM seen")
        # A backend in the middle of something outlives the postmaster for a moment; the restart waits for it.
        busy = psycopg.connect(postgres.url)
        busy.execute("SELECT count(*) FROM seen")
        postgres.kill()
        assert (postgres.data_path / "postmaster.pid").exists()
        postgres.start()
        assert postgres.url == url
        busy.close()
    assert run_sql(postgres, "SELECT number FROM seen ORDER BY number") == [(0,), (1,), (2,)]


def test_what_the_owner_made_goes_over_to_the_applications_role(postgres: PostgresServer) -> None:
    """Data of a version that worked as the owner are taken over, partitions, triggers and sequences included."""
    run_sql(postgres, "CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY, n int) PARTITION BY RANGE (n)")
    run_sql(postgres, "CREATE TABLE a_1 PARTITION OF a FOR VALUES FROM (0) TO (10)")
    run_sql(postgres, "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    run_sql(postgres, "CREATE SEQUENCE s")
    for _ in range(2):
        postgres.make_application_role()
    with psycopg.connect(postgres.application_url, autocommit=True) as connection:
        connection.execute("INSERT INTO a (n) VALUES (1)")
        connection.execute("CREATE TABLE a_2 PARTITION OF a FOR VALUES FROM (10) TO (20)")
        connection.execute("CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 2'")
        connection.execute("ALTER SEQUENCE s RESTART")
        connection.execute("DROP TABLE a")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT pg_read_file('/etc/passwd')")


def test_a_pid_file_that_names_another_program_does_not_hinder_it(postgres: PostgresServer) -> None:
    """After a reboot the number in the file may belong to anybody."""
    postgres.stop()
    bystander = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: os.setuid(postgres.data_path.stat().st_uid))
    try:
        (postgres.data_path / "postmaster.pid").write_text(f"{bystander.pid}\n{postgres.data_path}\n1\n5432\n\n\n\n")
        postgres.start()
        assert run_sql(postgres, "SELECT 1") == [(1,)]
    finally:
        bystander.kill()
        bystander.wait()


def test_a_second_server_on_the_same_data_is_refused(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossmodel_site.embedded.postgres_server.START_TIMEOUT_SECONDS", 0.3)
    with pytest.raises(ServerError, match=r"Another Postgres \(process \d+\) uses the data"):
        PostgresServer(postgres.folder).start()
    assert run_sql(postgres, "SELECT 1") == [(1,)]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as holder:
        port = find_free_port()
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(ServerError, match=f"Postgres cannot listen: port {port} is taken"):
            PostgresServer(tmp_path / "postgres", port=port).start()


def test_lets_nobody_in_without_its_password(postgres: PostgresServer) -> None:
    password = postgres.read_password()
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        psycopg.connect(postgres.url.replace(f":{password}@", "@"))
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres.url.replace(password, "x" + password[1:]))
    assert (postgres.folder / "password").stat().st_mode & 0o777 == 0o600
    assert postgres.data_path.stat().st_mode & 0o777 == 0o700


def test_half_made_data_are_made_again(tmp_path: Path) -> None:
    (tmp_path / "postgres" / "data.unfinished").mkdir(parents=True)
    (tmp_path / "postgres" / "data.unfinished" / "PG_VERSION").write_text("18")
    server = PostgresServer(tmp_path / "postgres")
    server.start()
    assert run_sql(server, "SELECT 1") == [(1,)]
    server.stop()


def test_data_of_another_version_are_refused_by_name(tmp_path: Path) -> None:
    data = tmp_path / "postgres" / "data"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServerError, match="was made by Postgres 9; the one found here is"):
        PostgresServer(tmp_path / "postgres").start()


def test_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    """Also when that process is killed with -9."""
    code = (
        "import sys, time; from pathlib import Path; from crossmodel_site.embedded import PostgresServer\n"
        "server = PostgresServer(Path(sys.argv[1])); server.start(); print(server.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "postgres")],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 10
    while Path("/proc", str(pid), "cwd").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path("/proc", str(pid), "cwd").exists()
