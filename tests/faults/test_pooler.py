"""Postgres through PgBouncer in transaction mode: many connections share few, and nothing notices."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg
import pytest
from pytest_django.plugin import DjangoDbBlocker

from crossmodel_site.embedded import RedisServer
from crossmodel_site.embedded.ports import find_free_port
from tests.support.databases import create_database
from tests.support.live_stack import LiveStack, end, looking_at

SERVER_CONNECTIONS = 4
REQUESTS = 12
START_SECONDS = 20.0
PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed"),
]


@contextmanager
def pooled(folder: Path, postgres_url: str) -> Iterator[str]:
    """Start PgBouncer in front of a database and return the URL that leads through it."""
    parts = urlsplit(postgres_url)
    host = parse_qs(parts.query).get("host", [parts.hostname or ""])[0]
    port, name, user = find_free_port(), parts.path.lstrip("/"), unquote(parts.username or "")
    upstream = f"host={host} port={parts.port or 5432} dbname={name} user={user}"
    upstream += f" password={unquote(parts.password)}" if parts.password else ""
    folder.mkdir(mode=0o755)
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(
        f"[databases]\n{name} = {upstream}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n"
        f"auth_type = any\npool_mode = transaction\ndefault_pool_size = {SERVER_CONNECTIONS}\n"
        f"max_client_conn = 200\nunix_socket_dir =\n"
    )
    command = [str(PGBOUNCER), str(configuration)]
    if os.geteuid() == 0:  # It refuses to run as root.
        pwd.getpwnam("postgres")
        configuration.chmod(0o644)
        command[1:1] = ["-u", "postgres"]
    log = (folder / "log").open("wb")
    process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        ends_at = time.monotonic() + START_SECONDS
        while not _listens(port):
            assert process.poll() is None and time.monotonic() < ends_at, (folder / "log").read_text()
            time.sleep(0.05)
        yield f"postgresql://{user}@127.0.0.1:{port}/{name}"
    finally:
        end(process, signal.SIGKILL)
        log.close()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_everything_works_through_few_connections(
    tmp_path: Path, django_db_blocker: DjangoDbBlocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Migrations, requests, settlement, a page, and the checks, which read one snapshot."""
    monkeypatch.delenv("PGOPTIONS", raising=False)  # The suite's own; a pooler takes no options of a session.
    tmp_path.chmod(0o755)
    direct = create_database(f"pooled_{os.getpid()}", is_migrated=False)
    redis_server = RedisServer(tmp_path / "redis", durable=False)
    redis_server.start()
    try:
        with pooled(tmp_path / "pgbouncer", direct) as url:
            stack = LiveStack(tmp_path / "stack", postgres_url=url, redis_url=redis_server.url)
            try:
                stack.start()
                with django_db_blocker.unblock(), looking_at(stack):
                    tenant = stack.make_tenant()
                    responses = [stack.post(tenant) for _ in range(REQUESTS)]
                    assert {response.status_code for response in responses} == {200}
                    assert stack.record(responses[-1]).cost_nanos > 0
                    assert stack.get(tenant, "/api/v1/credits").status_code == 200
                    stack.wait_until_quiet()
                assert "0 breaks" in stack.manage("check_ledger", "--quiet").stdout
                with psycopg.connect(direct) as connection:
                    row = connection.execute(
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                        " AND pid <> pg_backend_pid()"
                    ).fetchone()
                assert row is not None
                assert 0 < row[0] <= SERVER_CONNECTIONS
            finally:
                stack.stop()
    finally:
        redis_server.stop()
