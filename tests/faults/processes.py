"""Faults of our own processes: killed, stopped for a while, there twice."""

import os
import signal
import subprocess
import time
from pathlib import Path

from django.db import transaction

from billing.admission.redis.topology import CLUSTER
from billing.models import OrganizationBalance, UsageRecord
from tests.faults.scenario import Scenario
from tests.support.live_stack import QUICK, end

LEASE_SECONDS = float(QUICK["CROSSMODEL_LEASE_SECONDS"])
COMMIT_SECONDS = 4.0  # A batch that waited for a lock commits within this; the worker waits longer for Redis.
CHILDREN_KILLED = 4


def gateway_killed(scenario: Scenario) -> None:
    scenario.pause()
    scenario.stack.kill_gateway()
    scenario.pause()
    scenario.stack.start_gateway()


def gateway_stopped_past_its_lease(scenario: Scenario) -> None:
    """SIGSTOP, until its holds are settled as orphans, then SIGCONT: it must charge nothing more."""
    assert scenario.stack.gateway is not None
    scenario.pause()
    scenario.stack.gateway.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + scenario.chance.uniform(0.5, 2.5))
    scenario.stack.gateway.send_signal(signal.SIGCONT)


def worker_killed(scenario: Scenario) -> None:
    scenario.pause()
    scenario.stack.kill_worker()
    scenario.pause()
    scenario.stack.start_worker()


def worker_killed_before_it_confirms(scenario: Scenario) -> None:
    """The worker commits to Postgres and dies before it could tell Redis.

    A lock holds its transaction up; meanwhile Redis is stopped, so that it hangs where the confirmation is. Redis must
    die too: going on, it would carry out what the dead worker had sent.
    """
    nodes = [scenario.strike_redis()] if scenario.stack.redis.kind != CLUSTER else list(scenario.stack.redis.masters())
    ids = [tenant.organization.pk for tenant in scenario.tenants]
    with transaction.atomic():
        list(
            OrganizationBalance.objects.select_for_update().filter(organization_id__in=ids).order_by("organization_id")
        )
        scenario.pause(0.5, 1.0)
        records = UsageRecord.objects.filter(organization_id__in=ids)
        before = records.count()
        for node in nodes:
            os.kill(node.pid, signal.SIGSTOP)
    try:
        ends_at = time.monotonic() + COMMIT_SECONDS
        while records.count() == before and time.monotonic() < ends_at:
            time.sleep(0.02)
        scenario.stack.kill_worker()
    finally:
        for node in nodes:
            node.kill()
        scenario.stack.bring_redis_back(*nodes)
    scenario.pause(0.0, 0.3)
    scenario.stack.start_worker()


def worker_child_killed(scenario: Scenario) -> None:
    """A worker with forked children, which are killed one after another, and then the parent alone."""
    stack = scenario.stack
    stack.kill_worker()
    stack.start_worker(pool="prefork", has_beat=False)
    beat = stack.start_beat()
    try:
        assert stack.worker is not None
        scenario.load.wait_for_answers(20)
        for _ in range(CHILDREN_KILLED):
            scenario.pause(0.2, 0.8)
            children = _children_of(stack.worker.pid)
            if children:
                os.kill(scenario.chance.choice(children), signal.SIGKILL)
        os.kill(stack.worker.pid, signal.SIGKILL)
        scenario.pause(0.0, 0.5)
    finally:
        end(beat, signal.SIGKILL)
        stack.kill_worker()
        stack.start_worker()


def beat_doubled(scenario: Scenario) -> None:
    """Two beats and two workers: every trigger comes twice."""
    extra: list[subprocess.Popen[bytes]] = [scenario.stack.start_beat(), scenario.stack.spawn_worker("second")]
    try:
        scenario.load.wait_for_answers(100)
        scenario.pause(1.0, 2.0)
    finally:
        for process in extra:
            end(process, signal.SIGKILL)


def _children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
