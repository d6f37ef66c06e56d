"""Admission and its faults on a Redis Cluster, and on a Redis whose replica takes over."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_django.plugin import DjangoDbBlocker

from billing.admission.redis.topology import CLUSTER, SENTINEL
from tests.faults.catalog import FAULTS_BY_TOPOLOGY
from tests.faults.scenario import WARM_UP_ANSWERS, run_fault
from tests.support.durable_stack import DurableStack
from tests.support.live_stack import ROOT, looking_at
from tests.support.redis_topologies import TOPOLOGIES

pytestmark = [pytest.mark.long, pytest.mark.keeps_redis, pytest.mark.timeout(600)]
ADMISSION_TEST_SECONDS = 150
# Every fault can be run on each, by `python -m tests.faults --topology`; these are what sets them apart.
FAULTS_RUN = {CLUSTER: ("redis_killed", "redis_emptied"), SENTINEL: ("master_failed_over",)}


@pytest.fixture
def redis_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    servers = TOPOLOGIES[request.param](tmp_path / "redis")
    try:
        servers.start()
        yield servers.url
    finally:
        servers.stop()


@pytest.mark.parametrize("redis_url", [CLUSTER, SENTINEL], indirect=True)
def test_admission_holds(redis_url: str) -> None:
    """Run the tests of the scripts again, on this Redis."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/billing/admission", "-m", "not single_redis"]
    environment = {**os.environ, "REDIS_URL": redis_url}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=ADMISSION_TEST_SECONDS, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:]


@pytest.mark.parametrize("topology", FAULTS_RUN)
def test_no_money_is_lost(topology: str, tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> None:
    stack = DurableStack(tmp_path / "stack", topology=topology)
    with django_db_blocker.unblock():
        try:
            stack.start()
            with looking_at(stack):
                for name in FAULTS_RUN[topology]:
                    run = run_fault(stack, name, FAULTS_BY_TOPOLOGY[topology][name], seed=1)
                    assert not run.violations, "\n".join(run.violations)
                    assert run.counts["complete"] >= 2 * WARM_UP_ANSWERS, run.answers
        finally:
            stack.stop()
