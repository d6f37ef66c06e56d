"""Two faults at once, and absences that outlast a lease: what was judged meanwhile is put right afterwards."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.processes import LEASE_SECONDS
from tests.faults.servers import redis_loses_its_last_writes
from tests.faults.stage import Stage


def gateway_killed_past_its_lease(stage: Stage) -> None:
    stage.pause()
    stage.world.kill_gateway()
    _outlast_the_lease(stage)
    stage.world.start_gateway()


def gateway_killed_while_redis_is_away(stage: Stage) -> None:
    """Replies end while Redis does not answer, so that only the disk has their events; then nobody brings these."""
    stage.pause()
    nodes = stage.world.redis.masters()
    for node in nodes:
        os.kill(node.pid, signal.SIGSTOP)
    stage.pause(0.2, 1.0)
    stage.world.kill_gateway()
    for node in nodes:
        os.kill(node.pid, signal.SIGCONT)
    _outlast_the_lease(stage)
    stage.world.start_gateway()


def gateway_killed_while_redis_loses_its_last_writes(stage: Stage) -> None:
    stage.holds_lost = True
    stage.pause()
    stage.world.kill_gateway()
    redis_loses_its_last_writes(stage)
    _outlast_the_lease(stage)
    stage.world.start_gateway()


def gateway_stopped_while_redis_loses_its_last_writes(stage: Stage) -> None:
    stage.pause()
    with _gateway_stopped(stage):
        redis_loses_its_last_writes(stage)
        _outlast_the_lease(stage)


def gateway_stopped_while_redis_is_emptied(stage: Stage) -> None:
    stage.rate_states_lost += 1
    stage.pause()
    with _gateway_stopped(stage):
        stage.pause()
        stage.world.flush_redis()
        _outlast_the_lease(stage)


def gateway_stopped_while_postgres_is_killed(stage: Stage) -> None:
    stage.pause()
    with _gateway_stopped(stage):
        stage.world.postgres.kill()
        _outlast_the_lease(stage)
        stage.world.postgres.start()


@contextmanager
def _gateway_stopped(stage: Stage) -> Iterator[None]:
    assert stage.world.gateway is not None
    stage.world.gateway.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        stage.world.gateway.send_signal(signal.SIGCONT)


def _outlast_the_lease(stage: Stage) -> None:
    time.sleep(LEASE_SECONDS + stage.chance.uniform(0.5, 3.5))
