"""The registry of scheduled work: what each job does, how often it is due, and how its runs went.

A job is due by the clock, but what it does it reads from Redis and Postgres: late, doubled or killed in the middle it
loses nothing. So the records here are for people. They are written beside the work, and never stop it.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast

from celery import current_app
from django.conf import settings
from django.db import Error, connection
from django.utils import timezone

from operations.metrics import JOB_DURATION, JOBS
from operations.models import JobRun, JobState

DAYS_KEPT = 30
MAX_DETAIL_CHARS = 500
# A job is late when it was due this often and did not end, but never sooner than MIN_LATE_SECONDS.
LATE_AFTER_PERIODS = 3
MIN_LATE_SECONDS = 300.0
# A run that has not ended after so long is stuck, or its process died.
STUCK_AFTER_SECONDS = 3600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Job:
    """`task` is the name of Celery's task that triggers it; `what` says what it does, for people."""

    name: str
    task: str
    what: str

    @property
    def period_seconds(self) -> float:
        entry = settings.CELERY_BEAT_SCHEDULE[self.task.removeprefix("billing.")]
        return float(cast(float, entry["schedule"]))

    @property
    def every(self) -> str:
        """The period as people say it: "2 s", "10 min", "6 h"."""
        seconds = self.period_seconds
        for unit, length in (("h", 3600), ("min", 60)):
            if seconds >= length and seconds % length == 0:
                return f"{seconds / length:g} {unit}"
        return f"{seconds:g} s"

    @property
    def late_after_seconds(self) -> float:
        return max(MIN_LATE_SECONDS, LATE_AFTER_PERIODS * self.period_seconds)


REGISTRY = (
    Job("due_work", "billing.pulse", "Publishes changes to Redis, closes orphans, and calls for settlement."),
    Job("maintenance", "billing.housekeeping", "Expires credit, makes partitions, forgets what is old."),
    Job("traffic", "billing.traffic", "Counts the minutes and hours that the dashboard shows."),
    Job("traffic_check", "billing.traffic_check", "Counts yesterday's hours again, for usage that came late."),
    Job(
        "retention",
        "billing.retention",
        "Erases what organizations want kept no longer: request details, or all of one.",
    ),
    Job("alerts", "billing.alerts", "Raises and clears alerts of balances, budgets and spending."),
    Job("catalog_alerts", "billing.catalog_alerts", "Raises and clears alerts of prices and models."),
    Job("notices", "billing.courier", "Queues the mails and webhooks of alerts, and has them delivered."),
    Job("documents", "billing.documents", "Writes receipts, and closes the months that are over."),
    Job("payments", "billing.payments", "Tops up by itself, gives recurring credit, and asks what became of orders."),
    Job("payment_lists", "billing.payment_lists", "Compares our orders with the payment provider's list."),
    Job("provider_balances", "billing.provider_balances", "Asks providers what is left on our accounts."),
    Job("price_drift", "billing.price_drift", "Drafts what providers' price lists say otherwise than ours."),
    Job("reratings", "billing.reratings", "Posts re-ratings that were decided, and goes on with what was cut short."),
    Job("reconcile", "billing.reconcile", "Compares the books with Redis, providers and payments, once a day."),
)
BY_NAME = {job.name: job for job in REGISTRY}


@dataclass(frozen=True, slots=True)
class Standing:
    """How one job stands. `needs_a_person` when it is late, stuck, or failed the last time."""

    job: Job
    state: JobState | None
    is_late: bool
    is_stuck: bool

    @property
    def is_failing(self) -> bool:
        return self.state is not None and self.state.failures_in_a_row > 0

    @property
    def needs_a_person(self) -> bool:
        return self.is_late or self.is_stuck or self.is_failing

    @property
    def word(self) -> str:
        if self.is_stuck:
            return "stuck"
        if self.is_failing:
            return "failing"
        if self.is_late:
            return "late"
        return "well" if self.state and self.state.last_done_at else "has not run yet"


@contextmanager
def job(name: str) -> Iterator[None]:
    """Note one run of a job, and how it ended. Raises what the run raises."""
    started_at, started = timezone.now(), time.monotonic()
    _note(_note_start, name, started_at)
    try:
        yield
    except BaseException as error:
        _note_ending(name, started_at, started, f"{type(error).__name__}: {error}")
        raise
    _note_ending(name, started_at, started, "")


def run_now(job: Job) -> None:
    """Trigger the job at once, beside its schedule. A worker carries it out. Raises OperationalError of kombu."""
    current_app.send_task(job.task, expires=settings.TRIGGER_EXPIRES_SECONDS)


def read_standings(*, now: datetime | None = None) -> Sequence[Standing]:
    """Return how every job of the registry stands."""
    now = now or timezone.now()
    states = {state.name: state for state in JobState.objects.all()}
    return [_judge(entry, states.get(entry.name), now) for entry in REGISTRY]


def forget_old_runs(*, now: datetime) -> int:
    """Delete the runs of more than DAYS_KEPT days ago, and return how many rows those were."""
    return JobRun.objects.filter(last_ended_at__lt=now - timedelta(days=DAYS_KEPT)).delete()[0]


def _judge(entry: Job, state: JobState | None, now: datetime) -> Standing:
    if state is None or state.started_at is None:
        return Standing(entry, state, is_late=False, is_stuck=False)
    is_running = state.ended_at is None or state.started_at > state.ended_at
    is_stuck = is_running and now - state.started_at > timedelta(seconds=STUCK_AFTER_SECONDS)
    last = state.ended_at or state.started_at
    is_late = now - last > timedelta(seconds=entry.late_after_seconds)
    return Standing(entry, state, is_late=is_late and not is_stuck, is_stuck=is_stuck)


def _note_ending(name: str, started_at: datetime, started: float, failure: str) -> None:
    seconds = time.monotonic() - started
    JOB_DURATION.labels(name).observe(seconds)
    JOBS.labels(name, "failed" if failure else "done").inc()
    text = " ".join(failure.replace("\x00", "").split())[:MAX_DETAIL_CHARS]
    _note(_note_end, name, started_at, int(seconds * 1000), text)


def _note(write: object, *args: object) -> None:
    """Write a record unless Postgres is away, or the work has left a transaction that is broken."""
    try:
        if not (connection.in_atomic_block and connection.needs_rollback):
            write(*args)  # type: ignore[operator]
    except Error as error:
        logger.warning("A run of a job is not noted: %s", error)


def _note_start(name: str, started_at: datetime) -> None:
    JobState.objects.update_or_create(name=name, defaults={"started_at": started_at})


def _note_end(name: str, started_at: datetime, took_ms: int, failure: str) -> None:
    ended_at = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE operations_jobstate SET ended_at = %(now)s, took_ms = %(took)s,
                last_done_at = CASE WHEN %(failure)s = '' THEN %(now)s ELSE last_done_at END,
                last_failed_at = CASE WHEN %(failure)s = '' THEN last_failed_at ELSE %(now)s END,
                last_failure = CASE WHEN %(failure)s = '' THEN last_failure ELSE %(failure)s END,
                failures_in_a_row = CASE WHEN %(failure)s = '' THEN 0 ELSE failures_in_a_row + 1 END
                WHERE name = %(name)s""",
            {"now": ended_at, "took": took_ms, "failure": failure, "name": name},
        )
        cursor.execute(
            """INSERT INTO operations_jobrun AS kept
                (job, hour, is_failure, detail, first_started_at, last_ended_at, runs, slowest_ms)
                VALUES (%(name)s, %(hour)s, %(failure)s <> '', %(failure)s, %(started)s, %(now)s, 1, %(took)s)
                ON CONFLICT (job, hour) WHERE NOT is_failure DO UPDATE SET last_ended_at = excluded.last_ended_at,
                    runs = kept.runs + 1, slowest_ms = greatest(kept.slowest_ms, excluded.slowest_ms)""",
            {
                "name": name,
                "hour": ended_at.astimezone(UTC).replace(minute=0, second=0, microsecond=0),
                "failure": failure,
                "started": started_at,
                "now": ended_at,
                "took": took_ms,
            },
        )
