"""Two faults at once, and absences that outlast a lease: what was judged meanwhile is put right afterwards."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.processes import LEASE_SECONDS
from tests.faults.scenario import Scenario
from tests.faults.servers import redis_loses_its_last_writes


def gateway_killed_past_its_lease(scenario: Scenario) -> None:
    scenario.pause()
    scenario.stack.kill_gateway()
    _outlast_the_lease(scenario)
    scenario.stack.start_gateway()


def gateway_killed_while_redis_is_away(scenario: Scenario) -> None:
    """Replies end while Redis does not answer, so that only the disk has their events; then nobody brings these."""
    scenario.pause()
    nodes = scenario.stack.redis.masters()
    for node in nodes:
        os.kill(node.pid, signal.SIGSTOP)
    scenario.pause(0.2, 1.0)
    scenario.stack.kill_gateway()
    for node in nodes:
        os.kill(node.pid, signal.SIGCONT)
    _outlast_the_lease(scenario)
    scenario.stack.start_gateway()


def gateway_killed_while_redis_loses_its_last_writes(scenario: Scenario) -> None:
    scenario.holds_lost = True
    scenario.pause()
    scenario.stack.kill_gateway()
    redis_loses_its_last_writes(scenario)
    _outlast_the_lease(scenario)
    scenario.stack.start_gateway()


def gateway_stopped_while_redis_loses_its_last_writes(scenario: Scenario) -> None:
    scenario.pause()
    with _gateway_stopped(scenario):
        redis_loses_its_last_writes(scenario)
        _outlast_the_lease(scenario)


def gateway_stopped_while_redis_is_emptied(scenario: Scenario) -> None:
    scenario.rate_states_lost += 1
    scenario.pause()
    with _gateway_stopped(scenario):
        scenario.pause()
        scenario.stack.flush_redis()
        _outlast_the_lease(scenario)


def gateway_stopped_while_postgres_is_killed(scenario: Scenario) -> None:
    scenario.pause()
    with _gateway_stopped(scenario):
        scenario.stack.postgres.kill()
        _outlast_the_lease(scenario)
        scenario.stack.postgres.start()


@contextmanager
def _gateway_stopped(scenario: Scenario) -> Iterator[None]:
    assert scenario.stack.gateway is not None
    scenario.stack.gateway.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        scenario.stack.gateway.send_signal(signal.SIGCONT)


def _outlast_the_lease(scenario: Scenario) -> None:
    time.sleep(LEASE_SECONDS + scenario.chance.uniform(0.5, 3.5))
