"""A real streaming replica: pages read past usage from it, see what it has, and go on without it."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from django.conf import settings
from django.db import connections
from django.test import Client, override_settings
from pytest_django.plugin import DjangoDbBlocker

from accounts.models import Member, Organization, Role
from billing import read_replica
from billing.models import UsageRecord
from billing.usage.requests import RequestFilter, list_requests
from billing.usage.sums import UsageFilter, sum_period
from crossmodel_site.embedded import PostgresServer, RedisServer, ServerError
from crossmodel_site.embedded.binaries import find_postgres
from crossmodel_site.environment import database_entry
from tests.support.live_stack import LiveStack, Tenant, looking_at
from tests.support.people import client_of, make_person

NEVER_TOO_LATE = 1_000_000.0
BACKUP_SECONDS = 120


def base_backup() -> Path | None:
    try:
        program = find_postgres().postgres.with_name("pg_basebackup")
    except ServerError:
        return None
    return program if program.exists() else None


pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(300),
    pytest.mark.skipif(base_backup() is None, reason="pg_basebackup is not installed"),
]


def make_replica(primary: PostgresServer, folder: Path) -> PostgresServer:
    """Copy a running Postgres, and start the copy: it follows by streaming."""
    replica = PostgresServer(folder, durable=False)
    folder.mkdir(mode=0o711)
    password = folder / "password"
    password.touch(mode=0o600)
    password.write_text(primary.read_password())
    subprocess.run(
        [str(base_backup()), "--pgdata", str(replica.data_path), "--write-recovery-conf", "--checkpoint", "fast",
         "--wal-method", "stream", "--dbname", primary.url],
        check=True, timeout=BACKUP_SECONDS, capture_output=True,
    )  # fmt: skip
    owner = primary.data_path.stat()
    for path in (replica.data_path, *replica.data_path.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid)
    replica.start()
    return replica


@contextmanager
def known_as_replica(server: PostgresServer) -> Iterator[None]:
    """Let this process know the server as CROSSMODEL_REPLICA_URL would."""
    settings.DATABASES[read_replica.ALIAS] = database_entry(server.url, 2)
    connections.configure_settings(settings.DATABASES)
    try:
        yield
    finally:
        connections[read_replica.ALIAS].close()
        del connections[read_replica.ALIAS]
        del settings.DATABASES[read_replica.ALIAS]


def run_sql(server: PostgresServer, statement: str) -> object:
    with psycopg.connect(server.url, autocommit=True) as connection:
        row = connection.execute(statement).fetchone()
        return row[0] if row else None


def look_again() -> None:
    """What is known of the replica is a second old, or more after it was passed over: forget it."""
    read_replica._standing = read_replica.Standing()


def listed(organization: Organization) -> int:
    return len(list_requests(organization, RequestFilter(*_today())).requests)


def _today() -> tuple[date, date]:
    today = datetime.now(UTC).date()
    return today - timedelta(days=1), today


def wait_for_replay(primary: PostgresServer, replica: PostgresServer) -> None:
    position = run_sql(primary, "SELECT pg_current_wal_insert_lsn()")
    ends_at = time.monotonic() + 60
    while not run_sql(replica, f"SELECT pg_last_wal_replay_lsn() >= '{position}'"):
        assert time.monotonic() < ends_at, "The replica does not follow."
        time.sleep(0.1)


def test_usage_is_read_from_a_replica(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    tmp_path.chmod(0o755)
    primary, redis_server = PostgresServer(tmp_path / "primary", durable=False), RedisServer(tmp_path / "redis")
    primary.start()
    redis_server.start()
    replica: PostgresServer | None = None
    stack = LiveStack(tmp_path / "stack", postgres_url=primary.url, redis_url=redis_server.url)
    try:
        stack.start()
        replica = make_replica(primary, tmp_path / "replica")
        with django_db_blocker.unblock(), looking_at(stack), known_as_replica(replica):
            tenant = stack.make_tenant()
            Member.objects.create(organization=tenant.organization, user=make_person("alice"), role=Role.OWNER)
            client = client_of(Member.objects.get(organization=tenant.organization).user)
            assert_reads(stack, tenant, primary, replica, client)
            stack.overrides["CROSSMODEL_REPLICA_URL"] = replica.url
            said = stack.manage("status", check=False).stdout
            assert "read replica: " in said
            replica.stop()
            assert "! read replica: " in stack.manage("status", check=False).stdout
            connections[read_replica.ALIAS].close()
            look_again()
            assert listed(tenant.organization) == 2  # From the primary, as before there was a replica.
    finally:
        stack.stop()
        if replica is not None:
            replica.stop()
        redis_server.stop()
        primary.stop()


def assert_reads(
    stack: LiveStack, tenant: Tenant, primary: PostgresServer, replica: PostgresServer, client: Client
) -> None:
    organization = tenant.organization
    assert stack.post(tenant).status_code == 200
    stack.wait_until_quiet()
    wait_for_replay(primary, replica)
    look_again()
    assert listed(organization) == 1
    assert read_replica.read(UsageRecord).db == read_replica.ALIAS
    page = f"/console/{organization.slug}/usage/"
    assert client.get(page).status_code == 200

    run_sql(replica, "SELECT pg_wal_replay_pause()")
    stack.wait_until(lambda: run_sql(replica, "SELECT pg_get_wal_replay_pause_state()") == "paused", "replay is paused")
    assert stack.post(tenant).status_code == 200
    stack.wait_until_quiet()
    with override_settings(REPLICA_MAX_LAG_SECONDS=NEVER_TOO_LATE):
        # A reader sees usage as the replica has it; what decides, and balances, are of the primary.
        look_again()
        assert listed(organization) == 1
        assert read_replica.read(UsageRecord).db == read_replica.ALIAS
        assert sum_period(organization, UsageFilter(*_today())).requests == 1
        assert UsageRecord.objects.filter(organization_id=organization.pk).count() == 2
    time.sleep(1.5)
    look_again()
    with override_settings(REPLICA_MAX_LAG_SECONDS=1.0):
        assert listed(organization) == 2  # Too far behind: it is passed over.
        assert read_replica.read(UsageRecord).db == "default"
    run_sql(replica, "SELECT pg_wal_replay_resume()")
    wait_for_replay(primary, replica)
    look_again()
    with override_settings(REPLICA_MAX_LAG_SECONDS=NEVER_TOO_LATE):
        assert listed(organization) == 2
        assert read_replica.read(UsageRecord).db == read_replica.ALIAS
