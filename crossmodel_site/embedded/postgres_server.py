"""A Postgres of one's own: durable, small, quiet when idle, reachable on loopback with a password only."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from psycopg import sql

from crossmodel_site.embedded.binaries import PostgresPrograms, find_postgres
from crossmodel_site.embedded.errors import ServerError
from crossmodel_site.embedded.libpq import forget_variables_of_libpq
from crossmodel_site.embedded.process import SystemUser, choose_unprivileged_user, prepare_child, start_child
from crossmodel_site.embedded.server import HOST, POLL_SECONDS, START_TIMEOUT_SECONDS, Server

OWNER = "crossmodel"  # Made by initdb, so a superuser; the application works as APPLICATION.
APPLICATION = "crossmodel_app"
DATABASE = "crossmodel"
INITDB_TIMEOUT_SECONDS = 120
MAX_CONNECTIONS = 80

# Small and quiet: what a laptop wants. Durability is left as strict as Postgres comes.
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": str(MAX_CONNECTIONS),
    "shared_buffers": "48MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "max_parallel_workers_per_gather": "0",
    "max_logical_replication_workers": "0",
    "autovacuum_naptime": "60s",
    "bgwriter_delay": "1s",
    "checkpoint_timeout": "15min",
    "jit": "off",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "log_checkpoints": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
SETTINGS_SINCE_18 = {"io_method": "sync"}  # Without its three I/O processes.
SETTINGS_FOR_SPEED = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


# Partitions, sequences and indexes follow their tables. What an earlier version made as the owner changes hands.
GIVE_TO_APPLICATION = sql.SQL(
    """
    DO $give$
    DECLARE item record;
    BEGIN
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'crossmodel_app') THEN
            CREATE ROLE crossmodel_app LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE;
        END IF;
        EXECUTE format('ALTER ROLE crossmodel_app PASSWORD %L', {password});
        ALTER DATABASE crossmodel OWNER TO crossmodel_app;
        ALTER SCHEMA public OWNER TO crossmodel_app;
        FOR item IN
            SELECT c.oid::regclass AS name FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p', 'v')
                AND c.relowner = 'crossmodel'::regrole
        LOOP
            EXECUTE format('ALTER TABLE %s OWNER TO crossmodel_app', item.name);
        END LOOP;
        FOR item IN
            SELECT p.oid::regprocedure AS name FROM pg_proc p
            WHERE p.pronamespace = 'public'::regnamespace AND p.proowner = 'crossmodel'::regrole
        LOOP
            EXECUTE format('ALTER ROUTINE %s OWNER TO crossmodel_app', item.name);
        END LOOP;
        FOR item IN
            SELECT c.oid::regclass AS name FROM pg_class c
            WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'S' AND c.relowner = 'crossmodel'::regrole
        LOOP
            EXECUTE format('ALTER SEQUENCE %s OWNER TO crossmodel_app', item.name);
        END LOOP;
    END
    $give$
    """
)


class PostgresServer(Server):
    name = "Postgres"
    stop_signal = signal.SIGINT  # "Fast shutdown": breaks connections, loses nothing.
    folder_mode = 0o711  # It may run as another user than ours, who must pass to the data, which are 700 and its own.

    @property
    def url(self) -> str:
        return f"postgresql://{OWNER}:{self.read_password()}@{HOST}:{self.port}/{DATABASE}"

    @property
    def application_url(self) -> str:
        """The same database for a role that owns it and is not a superuser: it runs no programs and reads no files."""
        return f"postgresql://{APPLICATION}:{self.read_password()}@{HOST}:{self.port}/{DATABASE}"

    def make_application_role(self) -> None:
        """Make the role where it is missing, and give it what the owner has in our database. Raises ServerError."""
        try:
            with psycopg.connect(self.url, connect_timeout=5) as connection:
                connection.execute(GIVE_TO_APPLICATION.format(password=sql.Literal(self.read_password())))
        except psycopg.Error as error:
            raise ServerError(f"Postgres could not make the role {APPLICATION}: {error}") from None

    @property
    def data_path(self) -> Path:
        return self.folder / "data"

    def prepare(self) -> None:
        """Make the cluster at the first start, and wait for what a killed server left behind."""
        forget_variables_of_libpq()
        programs = find_postgres()
        if not (self.data_path / "PG_VERSION").exists():
            self._make_cluster(programs)
            return
        made_by = int((self.data_path / "PG_VERSION").read_text())
        if made_by != programs.major:
            raise ServerError(
                f"The data in {self.data_path} was made by Postgres {made_by}; the one found here is {programs.major}."
            )
        self._wait_for_leftovers()

    def spawn(self, log: int) -> "subprocess.Popen[bytes]":
        programs = find_postgres()
        settings = {**SETTINGS, "port": str(self.port)}
        if programs.major >= 18:
            settings |= SETTINGS_SINCE_18
        if not self.durable:
            settings |= SETTINGS_FOR_SPEED
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return start_child(
            [programs.postgres, "-D", self.data_path, *options],
            user=self._choose_user(programs),
            death_signal=self.stop_signal,
            environment=_environment(),
            folder=Path("/"),
            output=log,
        )

    def answers(self) -> bool:
        """Say whether it takes connections; make our database where it is missing."""
        try:
            with psycopg.connect(
                self.url.rsplit("/", 1)[0] + "/postgres", connect_timeout=2, autocommit=True
            ) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.OperationalError:
            return False
        return True

    def _make_cluster(self, programs: PostgresPrograms) -> None:
        """Run initdb in a folder of its own name, renamed when it is done: half a cluster is never taken for one."""
        unfinished = self.folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        password_file = self.folder / "initdb-password"
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(self.read_password())
        user = self._choose_user(programs)
        if user is not None:
            os.chown(unfinished, user.uid, user.gid)
            os.chown(password_file, user.uid, user.gid)
        command = [programs.initdb, "-D", unfinished, "-U", OWNER, "--auth=scram-sha-256", f"--pwfile={password_file}"]
        command += ["--encoding=UTF8", "--locale=C"]
        if programs.major >= 17:
            command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        if not self.durable:
            command += ["--no-sync"]
        try:
            answer = subprocess.run(  # noqa: S603  The program was found in find_postgres.
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                cwd="/",
                env=_environment(),
                timeout=INITDB_TIMEOUT_SECONDS,
                check=False,
                preexec_fn=prepare_child(user=user, death_signal=signal.SIGTERM),
            )
        finally:
            password_file.unlink()
        if answer.returncode:
            reason = " / ".join((answer.stderr or answer.stdout).strip().splitlines()[-3:])
            raise ServerError(f"Postgres could not make its data in {self.folder}: {reason}")
        unfinished.rename(self.data_path)

    def _choose_user(self, programs: PostgresPrograms) -> SystemUser | None:
        try:
            return choose_unprivileged_user(program=programs.postgres, data=self.data_path)
        except LookupError as error:
            raise ServerError(
                f"Postgres does not run as root, and this system has no user {error}. "
                "Run this as a normal user, or set DATABASE_URL."
            ) from None

    def _wait_for_leftovers(self) -> None:
        """Return once no process of an earlier server uses the data any more.

        A killed postmaster's children end by themselves, soon; Postgres refuses to start before. When none is left
        and the number in postmaster.pid belongs to another program by now (after a reboot, say), Postgres would take
        that program for itself: the file is removed. Otherwise it stays, for Postgres to judge.
        """
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while leftovers := self._find_processes():
            if time.monotonic() > deadline:
                raise ServerError(f"Another Postgres (process {leftovers[0]}) uses the data in {self.data_path}.")
            time.sleep(POLL_SECONDS)
        lock = self.data_path / "postmaster.pid"
        if lock.exists():
            holder = lock.read_text().split("\n", 1)[0].strip()
            if holder.isdigit() and Path("/proc", holder).exists():
                lock.unlink()

    def _find_processes(self) -> list[int]:
        """Return the processes that work in the data folder, as every process of a Postgres does."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if (entry / "cwd").readlink() == self.data_path:
                        found.append(int(entry.name))
                except OSError:  # It ended meanwhile, or belongs to another user.
                    continue
        return found


def _environment() -> dict[str, str]:
    """Return a plain environment: PGDATA and the like must not reach this server, nor translate its messages."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
