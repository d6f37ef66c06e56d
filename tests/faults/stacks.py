"""The stacks that runs share: by where admission lives, and whether the clock can be moved.

A broken one is replaced, and so is one that is full of what many runs have left: each run checks all of it.
"""

import shutil
from pathlib import Path

from billing.admission.redis.topology import SINGLE
from tests.support.durable_stack import DurableStack
from tests.support.many_machines import ManyMachines

RUNS_OF_A_WORLD = 40
MACHINES = "machines"  # Three gateways behind a front, two workers, two beats; on one Redis.


class Stacks:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.chmod(0o755)  # Postgres, where root starts it, is another user and must pass.
        self._standing: dict[tuple[bool, str], DurableStack] = {}
        self._runs: dict[tuple[bool, str], int] = {}
        self._made = 0

    def give(self, *, has_clock: bool = False, topology: str = SINGLE) -> DurableStack:
        """Return the standing stack, or start one."""
        kind = has_clock, topology
        if kind in self._standing and self._runs[kind] >= RUNS_OF_A_WORLD:
            shutil.rmtree(self._drop(kind).folder, ignore_errors=True)
        if kind not in self._standing:
            self._made += 1
            folder = self._folder / f"stack-{self._made}"
            stack = (
                ManyMachines(folder)
                if topology == MACHINES
                else DurableStack(folder, has_clock=has_clock, topology=topology)
            )
            self._standing[kind] = stack
            self._runs[kind] = 0
            try:
                stack.start()
            except BaseException:  # Half a stack is none: the next who asks gets a new one.
                self._drop(kind)
                raise
        self._runs[kind] += 1
        return self._standing[kind]

    def drop(self) -> None:
        """Stop all stacks; the next is a new one."""
        for kind in list(self._standing):
            self._drop(kind)

    def _drop(self, kind: tuple[bool, str]) -> DurableStack:
        stack = self._standing.pop(kind)
        stack.stop()
        return stack
