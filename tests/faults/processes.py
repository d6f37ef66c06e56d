"""Faults of our own processes: killed, stopped for a while, there twice."""

import os
import signal
import subprocess
import time
from pathlib import Path

from django.db import transaction

from billing.admission.topology import CLUSTER
from billing.models import OrganizationBalance, UsageRecord
from tests.faults.stage import Stage
from tests.support.world import QUICK, end

LEASE_SECONDS = float(QUICK["CROSSMODEL_LEASE_SECONDS"])
COMMIT_SECONDS = 4.0  # A batch that waited for a lock commits within this; the worker waits longer for Redis.
CHILDREN_KILLED = 4


def gateway_killed(stage: Stage) -> None:
    stage.pause()
    stage.world.kill_gateway()
    stage.pause()
    stage.world.start_gateway()


def gateway_stopped_past_its_lease(stage: Stage) -> None:
    """SIGSTOP, until its holds are settled as orphans, then SIGCONT: it must charge nothing more."""
    assert stage.world.gateway is not None
    stage.pause()
    stage.world.gateway.send_signal(signal.SIGSTOP)
    time.sleep(LEASE_SECONDS + stage.chance.uniform(0.5, 2.5))
    stage.world.gateway.send_signal(signal.SIGCONT)


def worker_killed(stage: Stage) -> None:
    stage.pause()
    stage.world.kill_worker()
    stage.pause()
    stage.world.start_worker()


def worker_killed_before_it_confirms(stage: Stage) -> None:
    """The worker commits to Postgres and dies before it could tell Redis.

    A lock holds its transaction up; meanwhile Redis is stopped, so that it hangs where the confirmation is. Redis must
    die too: going on, it would carry out what the dead worker had sent.
    """
    nodes = [stage.strike_redis()] if stage.world.redis.kind != CLUSTER else list(stage.world.redis.masters())
    ids = [caller.organization.pk for caller in stage.callers]
    with transaction.atomic():
        list(
            OrganizationBalance.objects.select_for_update().filter(organization_id__in=ids).order_by("organization_id")
        )
        stage.pause(0.5, 1.0)
        records = UsageRecord.objects.filter(organization_id__in=ids)
        before = records.count()
        for node in nodes:
            os.kill(node.pid, signal.SIGSTOP)
    try:
        ends_at = time.monotonic() + COMMIT_SECONDS
        while records.count() == before and time.monotonic() < ends_at:
            time.sleep(0.02)
        stage.world.kill_worker()
    finally:
        for node in nodes:
            node.kill()
        stage.world.bring_redis_back(*nodes)
    stage.pause(0.0, 0.3)
    stage.world.start_worker()


def worker_child_killed(stage: Stage) -> None:
    """A worker with forked children, which are killed one after another, and then the parent alone."""
    world = stage.world
    world.kill_worker()
    world.start_worker(pool="prefork", has_beat=False)
    beat = world.start_beat()
    try:
        assert world.worker is not None
        stage.load.wait_for_answers(20)
        for _ in range(CHILDREN_KILLED):
            stage.pause(0.2, 0.8)
            children = _children_of(world.worker.pid)
            if children:
                os.kill(stage.chance.choice(children), signal.SIGKILL)
        os.kill(world.worker.pid, signal.SIGKILL)
        stage.pause(0.0, 0.5)
    finally:
        end(beat, signal.SIGKILL)
        world.kill_worker()
        world.start_worker()


def beat_doubled(stage: Stage) -> None:
    """Two beats and two workers: every trigger comes twice."""
    extra: list[subprocess.Popen[bytes]] = [stage.world.start_beat(), stage.world.spawn_worker("second")]
    try:
        stage.load.wait_for_answers(100)
        stage.pause(1.0, 2.0)
    finally:
        for process in extra:
            end(process, signal.SIGKILL)


def _children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
