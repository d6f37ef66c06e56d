"""Writes how jobs go: what runs now, how runs ended, and which of them died. Never stops the work.

A run that takes long says each minute that it lives. One of another machine that has been silent for ten died there;
of this machine's own processes it is known at once.
"""

import json
import logging
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import Error, connection
from django.utils import timezone

from operations.metrics import JOB_DURATION, JOBS
from operations.models import JobRun, JobState
from operations.processes import is_gone, is_of_here, this_process

MAX_DETAIL_CHARS = 500
STUCK_AFTER_SECONDS = 3600.0  # A run that lives and has not ended after so long hangs, or has more to do than ever.
BEAT_SECONDS = 60.0
SILENT_AFTER_SECONDS = 600.0  # Longer than a short outage of Postgres, and than clocks of machines differ.
DIED = "It died in the middle"

logger = logging.getLogger(__name__)

_open: dict[str, str] = {}  # The job of each run of this process that has not ended.
_heart: threading.Thread | None = None
_heart_lock = threading.Lock()

Running = Mapping[str, Mapping[str, Any]]


@contextmanager
def job(name: str) -> Iterator[None]:
    """Note one run of a job, and how it ended. Raises what the run raises."""
    started_at, started, token = timezone.now(), time.monotonic(), uuid.uuid4().hex
    _open[token] = name
    _start_heart()
    _note(_note_start, name, started_at, token)
    try:
        yield
    except BaseException as error:
        _note_ending(name, started_at, started, token, f"{type(error).__name__}: {error}")
        raise
    _note_ending(name, started_at, started, token, "")


def lives(name: str) -> bool:
    """Say whether a run of the job is under way, as far as anybody knows."""
    now = timezone.now()
    running = JobState.objects.filter(name=name).values_list("running", flat=True).first() or {}
    return any(not is_dead(run, now) for run in running.values())


def began_at(run: Mapping[str, Any]) -> datetime:
    return datetime.fromisoformat(run["started_at"])


def heard_at(run: Mapping[str, Any]) -> datetime:
    """Return when the run last said that it lives."""
    return datetime.fromisoformat(run.get("heard_at", run["started_at"]))


def is_dead(run: Mapping[str, Any], now: datetime) -> bool:
    """Say whether its process is gone: seen here, or told by the silence of another machine."""
    # A worker of the version before does not say that it lives.
    most = SILENT_AFTER_SECONDS if "heard_at" in run else STUCK_AFTER_SECONDS
    return is_gone(run) or (now - heard_at(run) > timedelta(seconds=most) and not is_of_here(run))


def is_stuck(run: Mapping[str, Any], now: datetime) -> bool:
    return now - began_at(run) > timedelta(seconds=STUCK_AFTER_SECONDS)


def _note_ending(name: str, started_at: datetime, started: float, token: str, failure: str) -> None:
    seconds = time.monotonic() - started
    _open.pop(token, None)
    JOB_DURATION.labels(name).observe(seconds)
    JOBS.labels(name, "failed" if failure else "done").inc()
    _note(_note_end, name, started_at, int(seconds * 1000), token, _printable(failure))


def _start_heart() -> None:
    """See to it that this process says of its runs that they live; forked from another, it has no such thread yet."""
    global _heart
    with _heart_lock:
        if _heart is None or not _heart.is_alive():
            _heart = threading.Thread(target=_beat, name="the heart of jobs", daemon=True)
            _heart.start()


def _beat() -> None:
    global _heart
    while True:
        threading.Event().wait(BEAT_SECONDS)  # Where the clock is moved for a test, Python cannot sleep.
        with _heart_lock:
            if not _open:
                _heart = None
                return
        for token, name in list(_open.items()):
            _note(_note_life, name, token)
        connection.close()


def _note(write: object, *args: object) -> None:
    """Write a record unless Postgres is away, or the work has left a transaction that is broken."""
    try:
        if not (connection.in_atomic_block and connection.needs_rollback):
            write(*args)  # type: ignore[operator]
    except Error as error:
        logger.warning("A run of a job is not noted: %s", error)


def _note_start(name: str, started_at: datetime, token: str) -> None:
    """Say that a run began. What it finds of runs that are dead is noted as such."""
    run = {"started_at": started_at.isoformat(), "heard_at": started_at.isoformat(), **this_process()}
    with connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO operations_jobstate AS kept
                (name, started_at, running, took_ms, last_failure, failures_in_a_row)
                VALUES (%(name)s, %(at)s, %(run)s::jsonb, 0, '', 0)
                ON CONFLICT (name) DO UPDATE
                    SET started_at = excluded.started_at, running = kept.running || excluded.running
                RETURNING running::text""",
            {"name": name, "at": started_at, "run": json.dumps({token: run})},
        )
        [[running]] = cursor.fetchall()
    left_over: Running = json.loads(running)
    for other, left in left_over.items():
        if is_dead(left, started_at):
            _note_death(name, other, left, at=started_at)
        elif other not in _open and {**left, **this_process()} == left:
            _forget(name, other)


def _note_life(name: str, token: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE operations_jobstate
                SET running = jsonb_set(running, ARRAY[%(token)s::text, 'heard_at'], to_jsonb(%(now)s::text))
                WHERE name = %(name)s AND jsonb_exists(running, %(token)s::text)""",
            {"token": token, "now": timezone.now().isoformat(), "name": name},
        )


def _forget(name: str, token: str) -> None:
    """Take away a run of this process that ended while Postgres was away."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE operations_jobstate SET running = running - %s::text WHERE name = %s", [token, name])


def _note_death(name: str, token: str, run: Mapping[str, Any], *, at: datetime) -> None:
    """Write down once that a run never ended. A job that was only slow notes its own end besides."""
    text = (
        f"{DIED}: it began at {began_at(run):%Y-%m-%d %H:%M:%S} UTC, and was last heard of at"
        f" {heard_at(run):%Y-%m-%d %H:%M:%S} UTC."
    )
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE operations_jobstate SET running = running - %(token)s::text, last_failed_at = %(now)s,
                last_failure = %(text)s, failures_in_a_row = failures_in_a_row + 1
                WHERE name = %(name)s AND jsonb_exists(running, %(token)s::text)""",
            {"token": token, "now": at, "text": text, "name": name},
        )
        if not cursor.rowcount:
            return  # Another run has noted it.
    JOBS.labels(name, "failed").inc()
    JobRun.objects.create(
        job=name,
        hour=_hour_of(at),
        is_failure=True,
        detail=text,
        first_started_at=began_at(run),
        last_ended_at=at,
        slowest_ms=max(0, int((at - began_at(run)).total_seconds() * 1000)),
    )


def _note_end(name: str, started_at: datetime, took_ms: int, token: str, failure: str) -> None:
    ended_at = timezone.now()
    with connection.cursor() as cursor:
        cursor.execute(
            """UPDATE operations_jobstate SET ended_at = %(now)s, took_ms = %(took)s,
                running = running - %(token)s::text,
                last_done_at = CASE WHEN %(failure)s = '' THEN %(now)s ELSE last_done_at END,
                last_failed_at = CASE WHEN %(failure)s = '' THEN last_failed_at ELSE %(now)s END,
                last_failure = CASE WHEN %(failure)s = '' THEN last_failure ELSE %(failure)s END,
                failures_in_a_row = CASE WHEN %(failure)s = '' THEN 0 ELSE failures_in_a_row + 1 END
                WHERE name = %(name)s""",
            {"now": ended_at, "took": took_ms, "failure": failure, "name": name, "token": token},
        )
        cursor.execute(
            """INSERT INTO operations_jobrun AS kept
                (job, hour, is_failure, detail, first_started_at, last_ended_at, runs, slowest_ms)
                VALUES (%(name)s, %(hour)s, %(failure)s <> '', %(failure)s, %(started)s, %(now)s, 1, %(took)s)
                ON CONFLICT (job, hour) WHERE NOT is_failure DO UPDATE SET last_ended_at = excluded.last_ended_at,
                    runs = kept.runs + 1, slowest_ms = greatest(kept.slowest_ms, excluded.slowest_ms)""",
            {
                "name": name,
                "hour": _hour_of(ended_at),
                "failure": failure,
                "started": started_at,
                "now": ended_at,
                "took": took_ms,
            },
        )


def _printable(text: str) -> str:
    return " ".join(text.replace("\x00", "").split())[:MAX_DETAIL_CHARS]


def _hour_of(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
