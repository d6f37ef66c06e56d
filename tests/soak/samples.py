"""What a local run holds at a moment: of each process, of Postgres, of Redis, and on the disk."""

from collections.abc import Mapping
from pathlib import Path

import psutil
import psycopg
import redis
from psycopg import sql

from crossmodel_site.environment import read_env_file
from tests.support.local_run import LocalRun

MIB = 1024**2
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
# Their own processes come and go as they like; what they hold is asked of them below.
SERVERS = {"Postgres", "Redis"}
# Servers keep their data where it belongs; everything else on the disk is a trace that somebody has to sweep.
SERVER_FOLDERS = {"postgres", "redis"}


class Sampler:
    """Samples one run. Names of measurements read as in "gateway threads" and "rows of billing_usagerecord"."""

    def __init__(self, run: LocalRun, temporary: Path) -> None:
        servers = read_env_file(run.folder / "servers.env")
        self._folder = run.folder
        self._temporary = temporary
        self._processes = {name: psutil.Process(pid) for name, pid in run.processes().items() if name not in SERVERS}
        self._postgres = psycopg.connect(servers["DATABASE_URL"], autocommit=True)
        self._redis = redis.Redis.from_url(servers["REDIS_URL"])
        self._broker = redis.Redis.from_url(servers["CELERY_BROKER_URL"])

    def sample(self) -> Mapping[str, float]:
        measurements: dict[str, float] = {}
        for name, process in self._processes.items():
            family = [process, *process.children(recursive=True)]
            measurements[f"{name} threads"] = sum(each.num_threads() for each in family)
            measurements[f"{name} files"] = sum(each.num_fds() for each in family)
            measurements[f"{name} MiB"] = sum(each.memory_info().rss for each in family) / MIB
        measurements["Postgres connections"] = self._number(sql.SQL(CONNECTIONS))
        memory = self._redis.info("memory")
        measurements["Redis MiB"] = memory["used_memory"] / MIB
        measurements["Redis clients"] = self._redis.info("clients")["connected_clients"]
        measurements["Redis keys"] = self._redis.dbsize()
        measurements["broker keys"] = self._broker.dbsize()
        measurements["temporary files"] = _count_files(self._temporary)
        measurements["files of the run"] = sum(
            _count_files(each) for each in self._folder.iterdir() if each.name not in SERVER_FOLDERS
        )
        for table, rows in self._rows().items():
            measurements[f"rows of {table}"] = rows
        return measurements

    def close(self) -> None:
        self._postgres.close()
        self._redis.close()
        self._broker.close()

    def _rows(self) -> dict[str, int]:
        tables = self._postgres.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = 'public' ORDER BY 1"
        ).fetchall()
        return {
            name: int(self._number(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(name))))
            for (name,) in tables
        }

    def _number(self, question: sql.SQL | sql.Composed) -> float:
        row = self._postgres.execute(question).fetchone()
        return float(row[0]) if row else 0.0


def _count_files(path: Path) -> int:
    return sum(1 for each in path.rglob("*") if each.is_file()) if path.is_dir() else 1
