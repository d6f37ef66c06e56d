"""Faults of Redis and Postgres: killed, emptied, cut short, full, slow, restored to an earlier moment."""

import io
import time
from pathlib import Path

from django.core.management import call_command

from tests.faults.stage import Stage

SLOW_SECONDS = 2
MAX_BYTES_CUT = 20_000


def redis_killed(stage: Stage) -> None:
    stage.pause()
    node = stage.strike_redis()
    node.kill()
    stage.pause()
    stage.world.bring_redis_back(node)


def redis_emptied(stage: Stage) -> None:
    stage.rate_states_lost += 2
    for _ in range(stage.chance.randint(1, 2)):
        stage.pause()
        stage.world.flush_redis()


def redis_loses_its_last_writes(stage: Stage) -> None:
    """Its log ends earlier than it did: acknowledged writes are gone, as with a disk that lies."""
    stage.pause()
    node = stage.strike_redis()
    node.kill()
    log = _append_only_file(node.folder)
    with log.open("r+b") as file:
        file.truncate(max(0, log.stat().st_size - stage.chance.randint(1, MAX_BYTES_CUT)))
    stage.rate_states_lost += 1
    stage.world.bring_redis_back(node)


def redis_full(stage: Stage) -> None:
    """Celery ends when its broker, the same Redis here, takes no more writes: whoever supervises it starts it anew."""
    stage.supervise = stage.world.restart_dead_worker
    stage.pause()
    nodes = stage.world.redis.masters()
    for size in ("1mb", "0"):
        for node in nodes:
            with node.client() as client:
                client.config_set("maxmemory", size)
        if size != "0":
            stage.pause(0.5, 3.0)


def redis_slow(stage: Stage) -> None:
    """Nothing is answered for two seconds; some time-outs come before the write, some after."""
    for _ in range(2):
        stage.pause()
        with stage.strike_redis().client() as client:
            if stage.chance.random() < 0.5:
                client.execute_command("DEBUG", "SLEEP", SLOW_SECONDS)
            else:
                client.execute_command("CLIENT", "PAUSE", SLOW_SECONDS * 1000)
                time.sleep(SLOW_SECONDS)


def postgres_killed(stage: Stage) -> None:
    stage.pause()
    stage.world.postgres.kill()
    stage.pause()
    stage.world.postgres.start()


def postgres_restored(stage: Stage) -> None:
    """Postgres comes back as of an earlier moment; what was settled since is replayed from the spool.

    The steps and their order are those of docs/operating.md. What clerks did meanwhile they do again.
    """
    world = stage.world
    stage.office.loses_movements = True
    world.reconnect()
    backup = world.copy_postgres()
    stage.load.wait_for_answers(50)
    stage.pause()
    world.kill_worker()
    world.reconnect()
    world.restore_postgres(backup)
    stage.keys_forgotten_at = time.time()
    call_command("replay_spool", "--folder", str(world.spool_path), stdout=io.StringIO())
    call_command("rebuild_admission", "--all", stdout=io.StringIO())
    world.start_worker()


def _append_only_file(folder: Path) -> Path:
    """Return the file that Redis appends to: one up to Redis 6, the last part of several since 7."""
    parts = sorted(folder.glob("appendonlydir/*.incr.aof"))
    return parts[-1] if parts else folder / "appendonly.aof"
