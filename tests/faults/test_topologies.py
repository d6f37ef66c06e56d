"""Admission and its faults on a Redis Cluster, and on a Redis whose replica takes over."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from tests.faults.stage import WARM_UP_ANSWERS, run_fault
from tests.faults.topologies import empty_cluster, fail_over, kill_master
from tests.support.durable_world import DurableWorld
from tests.support.redis_topologies import RedisCluster, SentinelGroup
from tests.support.world import ROOT, looking_at

pytestmark = [pytest.mark.faults, pytest.mark.keeps_redis]
ADMISSION_TEST_SECONDS = 120


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def test_scripts_hold_on_a_cluster(cluster: RedisCluster) -> None:
    run_admission_tests(cluster.url)


def test_no_money_is_lost_on_a_cluster(
    cluster: RedisCluster, tmp_path: Path, django_db_blocker: DjangoDbBlocker
) -> None:
    world = DurableWorld(tmp_path, redis_url=cluster.url)
    with django_db_blocker.unblock():
        try:
            world.start()
            with looking_at(world):
                for name, fault in (("killed", kill_master(cluster)), ("emptied", empty_cluster(cluster))):
                    run = run_fault(world, f"cluster_{name}", fault, seed=1)
                    assert not run.violations, "\n".join(run.violations)
                    assert run.figures["complete"] >= 2 * WARM_UP_ANSWERS, run.answers
        finally:
            world.stop()


def test_no_money_is_lost_when_a_replica_takes_over(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    group = SentinelGroup(tmp_path / "redis-group")
    world = DurableWorld(tmp_path / "world", redis_url=group.url)
    with django_db_blocker.unblock():
        try:
            group.start()
            world.start()
            with looking_at(world):
                run = run_fault(world, "master_failed_over", fail_over(group), seed=1)
            assert not run.violations, "\n".join(run.violations)
            assert run.figures["complete"] >= 2 * WARM_UP_ANSWERS, run.answers
        finally:
            world.stop()
            group.stop()


def run_admission_tests(redis_url: str) -> None:
    """Run the tests of the scripts again, on this Redis."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/billing/admission", "-m", "not single_redis"]
    environment = {**os.environ, "REDIS_URL": redis_url}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=ADMISSION_TEST_SECONDS, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:]
