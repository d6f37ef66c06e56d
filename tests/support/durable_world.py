"""A world on a Postgres and a Redis of its own that lose nothing, with every process and server in reach of kill -9."""

import os
import shutil
import signal
from pathlib import Path

import redis
from django.conf import settings
from django.db import connections

from billing.admission import worker
from crossmodel_site.embedded import PostgresServer, RedisServer
from tests.support.world import World, end


class DurableWorld(World):
    def __init__(self, folder: Path, **overrides: str) -> None:
        self.postgres = PostgresServer(folder / "postgres")
        self.redis = RedisServer(folder / "redis")
        super().__init__(folder, postgres_url=self.postgres.url, redis_url=self.redis.url, **overrides)

    def start(self) -> None:
        self.postgres.start()
        self.redis.start()
        super().start()

    def stop(self) -> None:
        super().stop()
        self.redis.stop()
        self.postgres.stop()

    # --- faults -------------------------------------------------------------------------------------------------

    def kill_gateway(self) -> None:
        assert self.gateway is not None
        end(self.gateway, signal.SIGKILL)

    def kill_worker(self) -> None:
        """Kill the worker with all children that it has forked."""
        assert self.worker is not None
        os.killpg(self.worker.pid, signal.SIGKILL)
        self.worker.wait()

    def flush_redis(self) -> None:
        """FLUSHALL: Redis is empty, and the same process as before."""
        with redis.Redis.from_url(self.redis.url) as client:
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
        if self.redis_url == settings.REDIS_URL:
            worker.redis_client().close()


def _take_owner_of(source: Path, copy: Path) -> None:
    """Postgres refuses data that are not its own; copytree keeps modes and leaves the owner to whoever copies."""
    owner = source.stat()
    for path in (copy, *copy.rglob("*")):
        os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)
