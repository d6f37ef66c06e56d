"""How `make test` shares the tests out between processes: what stays together, and what begins first.

Each process has a Postgres and a Redis of its own, and the stacks that its tests ask for.
"""

import os

import pytest
from xdist.scheduler import LoadScopeScheduling

# Tests that share a stack stay in one process, so that it is started once. Others stay together by file.
TOGETHER = ("tests/gateway/protocol/", "tests/clients/")
# The tests of the gateway take a third of the time of all. Two stacks, for the files before this letter and from it on,
# cost less than two processes that wait for the third.
GATEWAY, HALF = "tests/gateway/test_", "p"
FIRST_HALF, SECOND_HALF = f"{GATEWAY}a to o", f"{GATEWAY}p to z"
# What takes longest begins first, so that all processes end at about the same time.
LONGEST = (
    FIRST_HALF,
    SECOND_HALF,
    "tests/local/test_local_run.py",
    "tests/faults/test_topologies.py",
    "tests/local/test_fresh_clone.py",
    "tests/faults/test_deaths.py",
    "tests/clients/",
    "tests/console/test_browser.py",
    "tests/local/test_terminal.py",
)


class Scheduler(LoadScopeScheduling):  # type: ignore[misc]  # xdist ships no types.
    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def unit_of(nodeid: str) -> str:
    """Return what a test stays together with: a folder, a half of one, or a file."""
    path = nodeid.partition("::")[0]
    if path.startswith(GATEWAY):
        return FIRST_HALF if path[len(GATEWAY)] < HALF else SECOND_HALF
    return next((folder for folder in TOGETHER if path.startswith(folder)), path)


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests in the order in which units are handed out; within a unit it stays."""
    ranks = {unit: rank for rank, unit in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(unit_of(item.nodeid), len(LONGEST)))


def runs_no_tests(config: pytest.Config) -> bool:
    """Say whether this process only hands tests out to others (pytest -n 3)."""
    return bool(getattr(config.known_args_namespace, "numprocesses", 0)) and not is_one_of_many()


def is_one_of_many() -> bool:
    return "PYTEST_XDIST_WORKER" in os.environ
