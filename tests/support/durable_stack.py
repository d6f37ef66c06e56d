"""A stack on a Postgres and a Redis of its own that lose nothing, with every process and server in reach of kill -9."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.db import connections

from billing.admission.redis.blocking_client import forget_clients
from billing.admission.redis.topology import SINGLE
from crossmodel_site.embedded import PostgresServer, RedisServer
from tests.support.live_stack import LiveStack, end
from tests.support.redis_topologies import TOPOLOGIES, AdmissionRedis, RedisNode

CLOCK_SECONDS = 1.1  # libfaketime reads its file anew this often.
# An upstream that hangs is given up soon, but later than a gateway is stopped for: what came meanwhile must be read.
IMPATIENT = {"CROSSMODEL_UPSTREAM_FIRST_BYTE_SECONDS": "8", "CROSSMODEL_UPSTREAM_IDLE_SECONDS": "7"}
FAKETIME_LIBRARIES = "*/faketime/libfaketime.so.1"


class FakeClock:
    """Moves the time of day of the processes that are started with `environment`; what measures spans goes on."""

    def __init__(self, folder: Path) -> None:
        [self._library, *_] = [*Path("/usr/lib").glob(FAKETIME_LIBRARIES)]
        folder.mkdir(exist_ok=True)
        self._offset = folder / "clock"
        self.move(0, waits=False)

    @staticmethod
    def is_installed() -> bool:
        return any(Path("/usr/lib").glob(FAKETIME_LIBRARIES))

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def move(self, seconds: int, *, waits: bool = True) -> None:
        """Set the clock this far from the true time; seen within a second."""
        self._offset.write_text(f"{seconds:+d}")
        if waits:
            time.sleep(CLOCK_SECONDS)


class DurableStack(LiveStack):
    """`has_clock`: the time of day of Redis and worker is `clock`, that of the gateway `gateway_clock`, and both can be
    moved (needs libfaketime).
    """

    def __init__(self, folder: Path, *, has_clock: bool = False, topology: str = SINGLE, **overrides: str) -> None:
        """Celery's broker is the Redis of admission where that is one server, else a Redis of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)  # Postgres, where root starts it, is another user and must pass.
        self.postgres = PostgresServer(folder / "postgres")
        self.redis: AdmissionRedis = TOPOLOGIES[topology](folder / "redis")
        self._broker = None if topology == SINGLE else RedisServer(folder / "broker")
        overrides = {
            "CELERY_BROKER_URL": self._broker.url if self._broker else self.redis.url,
            **IMPATIENT,
            **overrides,
        }
        self.clock = FakeClock(folder) if has_clock else None
        self.gateway_clock = FakeClock(folder / "gateway-clock") if has_clock else None
        self._renew_all: subprocess.Popen[bytes] | None = None
        super().__init__(folder, postgres_url=self.postgres.url, redis_url=self.redis.url, **overrides)

    @property
    def environment(self) -> dict[str, str]:
        return {**super().environment, **(self.clock.environment if self.clock else {})}

    @property
    def beat_environment(self) -> dict[str, str]:
        # libfaketime fails calls that sleep until a moment of a monotonic clock, as Python does. Only beat sleeps so.
        return super().environment

    def spawn_gateway(self, port: int, environment: dict[str, str]) -> "subprocess.Popen[bytes]":
        clock = self.gateway_clock.environment if self.gateway_clock else {}
        return super().spawn_gateway(port, {**environment, **clock})

    def move_all_clocks(self, seconds: int) -> None:
        """Move the time of day of Redis, gateway and worker."""
        assert self.clock is not None and self.gateway_clock is not None
        self.gateway_clock.move(seconds, waits=False)
        self.clock.move(seconds)

    def start_worker(self, *, pool: str = "solo", has_beat: bool = True) -> None:
        super().start_worker(pool=pool, has_beat=has_beat and self.clock is None)

    def stop(self) -> None:
        super().stop()
        if self._renew_all is not None:
            end(self._renew_all, signal.SIGTERM)
        self.redis.stop()
        if self._broker is not None:
            self._broker.stop()
        self.postgres.stop()

    def start(self) -> None:
        self.postgres.start()
        if self._broker is not None:
            self._broker.start()
        with self._by_the_movable_clock():
            self.redis.start()
        if self.clock is not None:
            self._renew_all = self.start_beat()
        super().start()

    @contextmanager
    def _by_the_movable_clock(self) -> Iterator[None]:
        """Start Redis inside this: its process takes our environment as its own."""
        added = self.clock.environment if self.clock else {}
        os.environ.update(added)
        try:
            yield
        finally:
            for name in added:
                del os.environ[name]

    # --- faults -------------------------------------------------------------------------------------------------

    def kill_gateway(self) -> None:
        assert self.gateway is not None
        end(self.gateway, signal.SIGKILL)

    def kill_worker(self) -> None:
        """Kill the worker with all children that it has forked."""
        assert self.worker is not None
        os.killpg(self.worker.pid, signal.SIGKILL)
        self.worker.wait()

    def restart_dead_worker(self) -> None:
        """Start the worker again if it has ended by itself, as its supervisor would."""
        if self.worker is not None and self.worker.poll() is not None:
            self.start_worker()

    def bring_redis_back(self, *nodes: RedisNode) -> None:
        """Start redis-servers that were killed."""
        with self._by_the_movable_clock():
            self.redis.bring_back(*nodes)

    def flush_redis(self) -> None:
        """FLUSHALL: Redis is empty, and the same process as before."""
        for node in self.redis.masters():
            with node.client() as client:
                client.flushall()

    def copy_postgres(self) -> Path:
        """Stop Postgres in order, keep a copy of its data as a backup would, and start it again."""
        copy = self.folder / "postgres-backup"
        shutil.rmtree(copy, ignore_errors=True)
        self.postgres.stop()
        shutil.copytree(self.postgres.data_path, copy, symlinks=True)
        _take_owner_of(self.postgres.data_path, copy)
        self.postgres.start()
        return copy

    def restore_postgres(self, copy: Path) -> None:
        """Put the data of an earlier moment in place of today's."""
        self.postgres.kill()
        shutil.rmtree(self.postgres.data_path)
        copy.rename(self.postgres.data_path)
        self.postgres.start()

    def reconnect(self) -> None:
        """Forget this process' own connections to servers that were restarted."""
        connections["default"].close()
        forget_clients()


def _take_owner_of(source: Path, copy: Path) -> None:
    """Postgres refuses data that are not its own; copytree keeps modes and leaves the owner to whoever copies."""
    owner = source.stat()
    for path in (copy, *copy.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
