"""Looks at something again and again beside what is measured, in a thread of its own."""

import threading
from collections.abc import Callable


class Watch:
    """Calls `look` every so often, as long as its block runs, and keeps what it returned; None is left out."""

    def __init__(self, look: Callable[[], float | None], *, every_seconds: float) -> None:
        self.seen: list[float] = []
        self._look = look
        self._every_seconds = every_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            value = self._look()
            if value is not None:
                self.seen.append(value)
