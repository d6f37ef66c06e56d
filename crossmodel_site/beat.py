"""Celery's beat scheduler, without its spin before each tick, and with a clock that may be put back."""

from datetime import timedelta

from celery.beat import PersistentScheduler, ScheduleEntry
from celery.schedules import schedstate

# Beat wakes this much after an entry is due. Celery's own choice, 10 ms before, makes it ask 50 times a second
# whether the time has come.
WAKE_AFTER_SECONDS = 0.002
# A last run that lies further in the future than this was written by a clock that has been put back since.
MAX_FUTURE = timedelta(seconds=1)


class Scheduler(PersistentScheduler):  # type: ignore[misc]  # Celery ships no types.
    def adjust(self, n: float | None, drift: float = WAKE_AFTER_SECONDS) -> float | None:
        return n + drift if n and n > 0 else n

    def is_due(self, entry: ScheduleEntry) -> schedstate:
        """Say whether an entry is due. Celery alone would wait until the clock has come to where it was before."""
        if entry.last_run_at - entry.default_now() > MAX_FUTURE:
            return schedstate(is_due=True, next=self.adjust(entry.schedule.run_every.total_seconds()))
        return super().is_due(entry)
