"""Faults of the disk under a gateway's spool: full in the middle of a line, unwritable, and Redis away meanwhile.

The limit of the size of files stands for the disk: it cuts a line short and refuses the next, as a full one does, and
only for the gateway. What is admitted while nothing can be kept would be lost with the process, so nothing may be.
"""

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults.scenario import Scenario
from tests.support.load import Answer

NOTHING_BYTES = 1
MAX_CUT_BYTES = 1_500  # Within a line or two of the last one.
REFUSED_SECONDS = 10.0
SPOOL_FULL = "spool_full"
POLL_SECONDS = 0.02


def disk_full(scenario: Scenario) -> None:
    """Twice: the last line is cut short, nothing fits any more, and then there is room again."""
    for _ in range(2):
        scenario.pause()
        with _nothing_is_admitted(scenario), _full_disk(scenario):
            _wait_for_refusals(scenario)
            scenario.pause(0.5, 1.5)


def spool_folder_away(scenario: Scenario) -> None:
    """The folder is not there any more, as after an unmount, when the next segment is due; then it is back."""
    folder = scenario.stack.spool_path
    scenario.pause()
    away = folder.with_name("spool-away")
    folder.rename(away)
    try:
        with _nothing_is_admitted(scenario):
            with _full_disk(scenario):  # Until it notices: what is open can still be written.
                _wait_for_refusals(scenario)
            scenario.pause(0.5, 1.5)
    finally:
        away.rename(folder)


def disk_full_while_redis_is_away(scenario: Scenario) -> None:
    """What ends then is safe nowhere, and its end must not reach a client before it is."""
    scenario.pause()
    with _nothing_is_admitted(scenario), _full_disk(scenario):
        _wait_for_refusals(scenario)
        scenario.pause(0.0, 0.2)
        nodes = scenario.stack.redis.masters()
        for node in nodes:
            os.kill(node.pid, signal.SIGSTOP)
        scenario.pause(0.3, 1.2)
        for node in nodes:
            os.kill(node.pid, signal.SIGCONT)
        scenario.pause(0.0, 0.5)


@contextmanager
def _full_disk(scenario: Scenario) -> Iterator[None]:
    """While inside, the gateway can write to no file; the first line that does not fit is cut short."""
    assert scenario.stack.gateway is not None
    pid = scenario.stack.gateway.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    size = max((path.stat().st_size for path in scenario.stack.spool_path.parent.glob("spool*/*.jsonl")), default=0)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + scenario.chance.randint(1, MAX_CUT_BYTES), hard))
    try:
        scenario.pause(0.05, 0.3)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (NOTHING_BYTES, hard))
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def _nothing_is_admitted(scenario: Scenario) -> Iterator[None]:
    """From the first refusal on, nothing that begins and ends inside is served: that would be a violation."""
    began_at = time.time()
    yield
    ended_at = time.time()
    answers = list(scenario.load.answers)
    seen_at = min((answer.ended_at for answer in answers if _is_refused(answer, began_at)), default=ended_at)
    scenario.notes += [
        f"P1 request {answer.request_id} was admitted while nothing could be written down"
        for answer in answers
        if answer.status == 200 and not answer.is_replayed and seen_at < answer.began_at < answer.ended_at < ended_at
    ]


def _is_refused(answer: Answer, since: float) -> bool:
    return answer.error_code == SPOOL_FULL and answer.began_at > since


def _wait_for_refusals(scenario: Scenario) -> None:
    began_at = time.time()
    ends_at = began_at + REFUSED_SECONDS
    while time.time() < ends_at:
        if any(_is_refused(answer, began_at) for answer in list(scenario.load.answers)):
            return
        time.sleep(POLL_SECONDS)
    scenario.notes.append("P4 a full disk refused nobody")
