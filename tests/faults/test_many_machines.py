"""Three gateways, two workers and two beats: what one machine changes all know at once, and none of them is needed."""

import threading
from collections.abc import Iterator

import pytest
from pytest_django.plugin import DjangoDbBlocker

from accounts.keys import revoke_key
from billing.admission.blocking import reap_shards
from billing.admission.outbox import publish_pending_changes
from tests.billing.ledger_factory import USD, give
from tests.faults.catalog import MACHINE_FAULTS
from tests.faults.scenario import WARM_UP_ANSWERS, run_fault
from tests.support.live_stack import looking_at
from tests.support.many_machines import ManyMachines

pytestmark = [pytest.mark.long, pytest.mark.keeps_redis, pytest.mark.timeout(600)]
STREAM_SECONDS = 20.0


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, django_db_blocker: DjangoDbBlocker) -> Iterator[ManyMachines]:
    machines = ManyMachines(tmp_path_factory.mktemp("machines") / "stack")
    with django_db_blocker.unblock():
        try:
            machines.start()
            with looking_at(machines):
                yield machines
        finally:
            machines.stop()


def test_a_revoked_key_is_refused_by_all_at_once(stack: ManyMachines) -> None:
    tenant = stack.make_tenant()
    assert [machine.post(tenant).status_code for machine in stack.machines] == [200, 200, 200]
    revoke_key(tenant.key, revoked_by=None)
    publish_pending_changes()  # Who revokes a key does so before it is told that it is done.
    assert [machine.post(tenant).status_code for machine in stack.machines] == [401, 401, 401]


def test_a_balance_is_one_for_all(stack: ManyMachines) -> None:
    tenant = stack.make_tenant(credit_usd="0")
    assert [machine.post(tenant).status_code for machine in stack.machines] == [402, 402, 402]
    give(tenant.organization, USD)
    publish_pending_changes()
    assert [machine.post(tenant).status_code for machine in stack.machines] == [200, 200, 200]


def test_what_runs_on_one_machine_counts_on_the_others(stack: ManyMachines) -> None:
    tenant = stack.make_tenant(concurrent_requests=1)
    first, second, third = stack.machines
    answers: list[int] = []
    slow = threading.Thread(target=lambda: answers.append(first.post(tenant, "[[sandbox: delay=3000]]").status_code))
    slow.start()
    stack.wait_until(lambda: any(shard.holds_in_flight for shard in reap_shards()), "the first's request is admitted")
    assert second.post(tenant).status_code == 429
    assert third.post(tenant).status_code == 429
    slow.join(STREAM_SECONDS)
    assert answers == [200]
    assert third.post(tenant).status_code == 200


@pytest.mark.parametrize("name", MACHINE_FAULTS)
def test_no_machine_is_needed(stack: ManyMachines, name: str) -> None:
    """The last test of the module loses a machine for good."""
    run = run_fault(stack, name, MACHINE_FAULTS[name], seed=1)
    assert not run.violations, "\n".join(run.violations)
    assert run.counts["complete"] >= 2 * WARM_UP_ANSWERS, run.answers
