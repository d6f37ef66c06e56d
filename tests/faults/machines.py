"""Faults of one machine among several: restarted in turn while all are in use, and gone for good with its disk."""

import signal

from tests.faults.scenario import Scenario
from tests.support.load import REQUEST_SECONDS, Answer
from tests.support.many_machines import ManyMachines

ANSWERS_BETWEEN = 10


def gateways_restarted_in_turn(scenario: Scenario) -> None:
    """Taken out of the front, asked to end, started, put in again, one after another: no client notices."""
    stack = _machines(scenario)
    before = len(scenario.load.answers)
    for machine in stack.machines:
        scenario.pause()
        code = stack.stop_machine(machine)
        if code not in (0, -signal.SIGTERM):  # uvicorn ends by the signal that it was asked with.
            scenario.notes.append(f"P4 a gateway that was asked to end ended with code {code}")
        scenario.load.wait_for_answers(ANSWERS_BETWEEN)
        stack.start_machine(machine)
    scenario.load.wait_for_answers(ANSWERS_BETWEEN)
    lost = [answer for answer in scenario.load.answers[before:] if _is_lost(answer)]
    if lost:
        scenario.notes.append(f"P4 {len(lost)} requests were lost in a restart, the first with status {lost[0].status}")


def gateway_machine_lost(scenario: Scenario) -> None:
    """kill -9 of one gateway, whose spool is gone with its disk; nobody starts it again."""
    stack = _machines(scenario)
    scenario.pause()
    stack.lose_machine(scenario.chance.choice(stack.machines))


def _machines(scenario: Scenario) -> ManyMachines:
    assert isinstance(scenario.stack, ManyMachines)
    return scenario.stack


def _is_lost(answer: Answer) -> bool:
    """Say whether a client got no whole reply, for another reason than its own patience, limits or balance.

    Not counted: a Redis that did not answer in time, which is a machine too busy for all of this, and no restart.
    """
    if answer.ended_at - answer.began_at >= REQUEST_SECONDS or answer.error_code == "admission_unavailable":
        return False
    return answer.status == 0 or answer.status >= 500 or (answer.status == 200 and not answer.is_complete)
