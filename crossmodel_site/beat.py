"""Celery's beat scheduler, without its spin before each tick."""

from celery.beat import PersistentScheduler

# Beat wakes this much after an entry is due. Celery's own choice, 10 ms before, makes it ask 50 times a second
# whether the time has come.
WAKE_AFTER_SECONDS = 0.002


class Scheduler(PersistentScheduler):  # type: ignore[misc]  # Celery ships no types.
    def adjust(self, n: float | None, drift: float = WAKE_AFTER_SECONDS) -> float | None:
        return n + drift if n and n > 0 else n
