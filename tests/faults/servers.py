"""Faults of Redis and Postgres: killed, emptied, cut short, full, slow, restored to an earlier moment."""

import io
import time
from pathlib import Path

from django.core.management import call_command

from tests.faults.scenario import Scenario

SLOW_SECONDS = 2
AWAY_SECONDS = 60
ANSWERS_WHILE_AWAY = 20
QUICK_REPLIES = "tokens=5; pace=0; delay=0"
MAX_BYTES_CUT = 20_000


def redis_killed(scenario: Scenario) -> None:
    scenario.pause()
    node = scenario.strike_redis()
    node.kill()
    scenario.pause()
    scenario.stack.bring_redis_back(node)


def redis_emptied(scenario: Scenario) -> None:
    scenario.rate_states_lost += 2
    for _ in range(scenario.chance.randint(1, 2)):
        scenario.pause()
        scenario.stack.flush_redis()


def redis_loses_its_last_writes(scenario: Scenario) -> None:
    """Its log ends earlier than it did: acknowledged writes are gone, as with a disk that lies."""
    scenario.pause()
    node = scenario.strike_redis()
    node.kill()
    log = _append_only_file(node.folder)
    with log.open("r+b") as file:
        file.truncate(max(0, log.stat().st_size - scenario.chance.randint(1, MAX_BYTES_CUT)))
    scenario.rate_states_lost += 1
    scenario.stack.bring_redis_back(node)


def redis_full(scenario: Scenario) -> None:
    """Celery ends when its broker, the same Redis here, takes no more writes: whoever supervises it starts it anew."""
    scenario.supervise = scenario.stack.restart_dead_worker
    scenario.pause()
    nodes = scenario.stack.redis.masters()
    for size in ("1mb", "0"):
        for node in nodes:
            with node.client() as client:
                client.config_set("maxmemory", size)
        if size != "0":
            scenario.pause(0.5, 3.0)


def redis_slow(scenario: Scenario) -> None:
    """Nothing is answered for two seconds; some time-outs come before the write, some after."""
    for _ in range(2):
        scenario.pause()
        with scenario.strike_redis().client() as client:
            if scenario.chance.random() < 0.5:
                client.execute_command("DEBUG", "SLEEP", SLOW_SECONDS)
            else:
                client.execute_command("CLIENT", "PAUSE", SLOW_SECONDS * 1000)
                time.sleep(SLOW_SECONDS)


def postgres_killed(scenario: Scenario) -> None:
    scenario.pause()
    scenario.stack.postgres.kill()
    scenario.pause()
    scenario.stack.postgres.start()


def postgres_away_for_a_minute(scenario: Scenario) -> None:
    """As many requests as there is room for, while nobody settles: all that was used waits, and service goes on."""
    scenario.crowd_on(None, wishes=QUICK_REPLIES)
    scenario.pause()
    scenario.stack.postgres.kill()
    ends_at = time.monotonic() + AWAY_SECONDS
    while time.monotonic() < ends_at:
        scenario.load.wait_for_answers(ANSWERS_WHILE_AWAY)
        time.sleep(AWAY_SECONDS / 20)
    scenario.stack.postgres.start()
    scenario.crowd_on(None)


def postgres_restored(scenario: Scenario) -> None:
    """Postgres comes back as of an earlier moment; what was settled since is replayed from the spool.

    The steps and their order are those of docs/operating.md. What operators did meanwhile they do again.
    """
    stack = scenario.stack
    scenario.operators.loses_operations = True
    stack.reconnect()
    backup = stack.copy_postgres()
    scenario.load.wait_for_answers(50)
    scenario.pause()
    stack.kill_worker()
    stack.reconnect()
    stack.restore_postgres(backup)
    scenario.keys_forgotten_at = time.time()
    call_command("replay_spool", "--folder", str(stack.spool_path), stdout=io.StringIO())
    call_command("rebuild_admission", "--all", stdout=io.StringIO())
    stack.start_worker()


def _append_only_file(folder: Path) -> Path:
    """Return the file that Redis appends to: one up to Redis 6, the last part of several since 7."""
    parts = sorted(folder.glob("appendonlydir/*.incr.aof"))
    return parts[-1] if parts else folder / "appendonly.aof"
