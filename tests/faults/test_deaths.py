"""kill -9 of the gateway, of the worker, of Redis, of Postgres, and FLUSHALL, under load: no money is lost."""

import pytest

from tests.faults.catalog import DEATHS
from tests.faults.scenario import WARM_UP_ANSWERS, run_fault
from tests.support.durable_stack import DurableStack

ALWAYS = ("gateway_killed", "redis_emptied")  # The others belong to the long tests.

pytestmark = [pytest.mark.keeps_redis, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ALWAYS else [pytest.mark.long]) for name in DEATHS]
)
def test_no_money_is_lost(durable_stack: DurableStack, name: str) -> None:
    run = run_fault(durable_stack, name, DEATHS[name], seed=1)
    assert not run.violations, "\n".join(run.violations)
    assert run.counts["complete"] >= 2 * WARM_UP_ANSWERS, run.answers
