"""The worlds that runs share: one with true clocks, one whose clock can be moved. A broken one is replaced."""

from pathlib import Path

from tests.support.durable_world import DurableWorld


class Worlds:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folder.chmod(0o755)  # Postgres, where root starts it, is another user and must pass.
        self._standing: dict[bool, DurableWorld] = {}
        self._made = 0

    def give(self, *, has_clock: bool = False) -> DurableWorld:
        """Return the standing world, or start one."""
        if has_clock not in self._standing:
            self._made += 1
            world = DurableWorld(self._folder / f"world-{self._made}", has_clock=has_clock)
            self._standing[has_clock] = world
            world.start()
        return self._standing[has_clock]

    def drop(self) -> None:
        """Stop all worlds; the next is a new one."""
        while self._standing:
            self._standing.popitem()[1].stop()
