"""The registry of scheduled work: what each job does, how often it is due, and how its runs went.

A job is due by the clock, but what it does it reads from Redis and Postgres: late, doubled or killed in the middle it
loses nothing. So the records of its runs (job_records.py) are for people.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from celery import current_app
from django.conf import settings
from django.utils import timezone

from operations.job_records import began_at, heard_at, is_dead, is_stuck, job
from operations.models import JobRun, JobState

DAYS_KEPT = 30
# A job is late when it was due this often and did not end, but never sooner than MIN_LATE_SECONDS.
LATE_AFTER_PERIODS = 3
MIN_LATE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Job:
    """`task` is the name of Celery's task that triggers it; `what` says what it does, for people.

    `is_daily`: its triggers do nothing once it was done today, unless a person asks. `results`: the admin's page of
    what it found, where that is more than it did.
    """

    name: str
    task: str
    what: str
    is_daily: bool = False
    results: str = ""
    results_query: str = ""

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
    Job(
        "reconcile",
        "billing.reconcile",
        "Compares the books with Redis, roll-ups, providers and payments, once a day or when asked.",
        is_daily=True,
        results="admin:billing_reconciliationrun_changelist",
    ),
    Job(
        "ledger_check",
        "billing.ledger_check",
        "Checks that the books agree with themselves: open months, and a fourteenth of the proven, once a day or when"
        " asked.",
        is_daily=True,
        results="admin:billing_reconciliationrun_changelist",
        results_query="source__exact=ledger",
    ),
)
__all__ = ["BY_NAME", "REGISTRY", "Job", "Standing", "forget_old_runs", "job", "read_standings", "run_now"]
BY_NAME = {job.name: job for job in REGISTRY}


@dataclass(frozen=True, slots=True)
class Standing:
    """How one job stands. `needs_a_person` when it is late, stuck, or failed the last time."""

    job: Job
    state: JobState | None
    is_late: bool
    is_stuck: bool
    has_died: bool = False
    running_since: datetime | None = None
    last_heard_at: datetime | None = None

    @property
    def is_failing(self) -> bool:
        return self.state is not None and self.state.failures_in_a_row > 0

    @property
    def needs_a_person(self) -> bool:
        return self.is_late or self.is_stuck or self.has_died or self.is_failing

    @property
    def word(self) -> str:
        if self.has_died:
            return "died"
        if self.is_stuck:
            return "stuck"
        if self.is_failing:
            return "failing"
        if self.is_late:
            return "late"
        return "well" if self.state and self.state.last_done_at else "has not run yet"

    @property
    def says(self) -> str:
        """The word, and what else to know at once of a job that needs a person."""
        state, since = self.state, self.running_since
        if (self.has_died or self.is_stuck) and since:
            return f"{self.word}, it began at {since:%Y-%m-%d %H:%M} UTC"
        if self.is_failing and state:
            return f"failing, {state.failures_in_a_row:,} in a row, last: {state.last_failure}"
        if self.is_late and state and state.ended_at:
            return f"late, it last ended at {state.ended_at:%Y-%m-%d %H:%M} UTC"
        return self.word


def run_now(job: Job) -> None:
    """Trigger the job at once, beside its schedule. A worker carries it out. Raises OperationalError of kombu."""
    asked = {"at_once": True} if job.is_daily else {}
    current_app.send_task(job.task, kwargs=asked, expires=settings.TRIGGER_EXPIRES_SECONDS)


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
    runs = list(state.running.values())
    has_died = any(is_dead(run, now) for run in runs)
    stuck = not has_died and any(is_stuck(run, now) for run in runs)
    last = state.ended_at or state.started_at
    is_late = now - last > timedelta(seconds=entry.late_after_seconds)
    return Standing(
        entry,
        state,
        is_late=is_late and not stuck,
        is_stuck=stuck,
        has_died=has_died,
        running_since=min(map(began_at, runs), default=None),
        last_heard_at=max(map(heard_at, runs), default=None),
    )
