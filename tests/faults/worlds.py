"""The worlds that runs share: by where admission lives, and whether the clock can be moved.

A broken one is replaced, and so is one that is full of what many runs have left: each run checks all of it.
"""

import shutil
from pathlib import Path

from billing.admission.topology import SINGLE
from tests.support.durable_world import DurableWorld

RUNS_OF_A_WORLD = 40


class Worlds:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.chmod(0o755)  # Postgres, where root starts it, is another user and must pass.
        self._standing: dict[tuple[bool, str], DurableWorld] = {}
        self._runs: dict[tuple[bool, str], int] = {}
        self._made = 0

    def give(self, *, has_clock: bool = False, topology: str = SINGLE) -> DurableWorld:
        """Return the standing world, or start one."""
        kind = has_clock, topology
        if kind in self._standing and self._runs[kind] >= RUNS_OF_A_WORLD:
            shutil.rmtree(self._drop(kind).folder, ignore_errors=True)
        if kind not in self._standing:
            self._made += 1
            world = DurableWorld(self._folder / f"world-{self._made}", has_clock=has_clock, topology=topology)
            self._standing[kind] = world
            self._runs[kind] = 0
            try:
                world.start()
            except BaseException:  # Half a world is none: the next who asks gets a new one.
                self._drop(kind)
                raise
        self._runs[kind] += 1
        return self._standing[kind]

    def drop(self) -> None:
        """Stop all worlds; the next is a new one."""
        for kind in list(self._standing):
            self._drop(kind)

    def _drop(self, kind: tuple[bool, str]) -> DurableWorld:
        world = self._standing.pop(kind)
        world.stop()
        return world
