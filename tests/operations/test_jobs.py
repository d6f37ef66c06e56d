"""Jobs are noted beside their work, the page says which need a person, and the registry is the schedule."""

import dataclasses
import html
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.utils import timezone

from billing.admission.blocking import reap_shards
from billing.models import ReconciliationRun
from operations import tasks
from operations.job_records import lives
from operations.jobs import BY_NAME, REGISTRY, Job, forget_old_runs, job, read_standings
from operations.models import JobRun, JobState
from operations.reconciliation import check_ledger_due, reconcile_due
from tests.billing.documents.months import Customer, at
from tests.billing.ledger_factory import USD, make_organization
from tests.support.operators import operator_client
from tests.support.people import People, client_of, make_person

PAGE = "/admin/jobs/"
NAME = "maintenance"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def operator(people: People) -> Client:
    person = make_person("operator", is_staff=True)
    person.is_superuser = True
    person.save()
    return client_of(person)


def environment() -> dict[str, str]:
    """Return what a process of its own needs to use the database of this test."""
    address = urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}")
    return {**os.environ, "DATABASE_URL": address.geturl()}


def in_a_process(code: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", f"import django; django.setup(); {code}"]
    variables = {**environment(), "DJANGO_SETTINGS_MODULE": "crossmodel_site.settings"}
    return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=subprocess.PIPE, text=True)


def word_of(name: str, *, now: datetime | None = None) -> str:
    return next(standing.word for standing in read_standings(now=now) if standing.job.name == name)


def test_the_registry_is_the_schedule(settings: Any) -> None:
    scheduled = {entry["task"] for entry in settings.CELERY_BEAT_SCHEDULE.values()}
    assert {entry.task for entry in REGISTRY} == scheduled
    assert all(entry.period_seconds > 0 for entry in REGISTRY)


@pytest.mark.django_db
def test_quick_runs_of_an_hour_are_one_row_and_each_failure_has_its_own() -> None:
    for _ in range(3):
        with job(NAME):
            pass
    for _ in range(2):
        with pytest.raises(ValueError, match="broken"), job(NAME):
            raise ValueError("It is\nbroken.\x00")
    runs = list(JobRun.objects.order_by("is_failure", "id").values_list("runs", "is_failure", "detail"))
    assert runs == [(3, False, ""), (1, True, "ValueError: It is broken."), (1, True, "ValueError: It is broken.")]
    state = JobState.objects.get(name=NAME)
    assert (state.failures_in_a_row, state.last_failure) == (2, "ValueError: It is broken.")
    assert word_of(NAME) == "failing"
    with job(NAME):
        pass
    assert JobState.objects.get(name=NAME).failures_in_a_row == 0
    assert word_of(NAME) == "well"


@pytest.mark.django_db
def test_late_and_stuck_jobs_stand_out() -> None:
    assert word_of(NAME) == "has not run yet"
    with job(NAME):
        assert word_of(NAME) == "has not run yet"
        assert word_of(NAME, now=timezone.now() + timedelta(hours=2)) == "stuck"
    assert word_of(NAME) == "well"
    late = timedelta(seconds=BY_NAME[NAME].late_after_seconds + 1)
    assert word_of(NAME, now=timezone.now() + late) == "late"


@pytest.mark.django_db
def test_a_slow_run_is_seen_although_others_end_meanwhile() -> None:
    with job(NAME):
        with job(NAME):
            pass
        assert word_of(NAME, now=timezone.now() + timedelta(hours=2)) == "stuck"
    assert word_of(NAME) == "well"
    assert JobState.objects.get(name=NAME).running == {}


@pytest.mark.django_db(transaction=True)
def test_a_run_whose_process_is_killed_stands_out(people: People) -> None:
    """A real process, killed with -9 within the job; and then the next run."""
    code = f"import time; from operations.jobs import job\nwith job({NAME!r}): print(1, flush=True); time.sleep(600)"
    with in_a_process(code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        assert word_of(NAME) == "has not run yet"
        process.kill()
    assert word_of(NAME) == "died"
    client = operator_client("root", is_superuser=True)
    assert "died" in client.get(PAGE).content.decode()
    with job(NAME):
        pass
    dead = JobRun.objects.get(is_failure=True)
    assert dead.detail.startswith("It died in the middle: it began at ")
    assert word_of(NAME) == "well"
    page = client.get("/admin/operations/jobrun/").content.decode()
    assert '<strong class="text-red-600 font-semibold">died</strong>' in page
    with job(NAME):
        pass
    assert JobRun.objects.filter(is_failure=True).count() == 1


def run_elsewhere(*, began: timedelta, heard: timedelta | None = None) -> dict[str, Any]:
    """Return what another machine wrote of a run that began, and was heard of, so long ago."""
    now = timezone.now()
    run: dict[str, Any] = {"started_at": (now - began).isoformat(), "place": "elsewhere", "pid": 1, "began": "1"}
    return run if heard is None else {**run, "heard_at": (now - heard).isoformat()}


@pytest.mark.django_db
def test_a_run_on_another_machine_has_died_when_it_is_silent_and_not_when_it_is_long() -> None:
    with job(NAME):
        pass
    hours, minutes = timedelta(hours=2), timedelta(minutes=20)
    for run, word in (
        (run_elsewhere(began=hours, heard=timedelta()), "stuck"),
        (run_elsewhere(began=minutes, heard=timedelta()), "well"),
        (run_elsewhere(began=hours, heard=minutes), "died"),
        (run_elsewhere(began=minutes), "well"),
        (run_elsewhere(began=hours), "died"),
    ):
        JobState.objects.update(running={"a": run})
        assert word_of(NAME) == word
        assert lives(NAME) == (word != "died")
        with job(NAME):
            pass
        is_kept = "a" in JobState.objects.get(name=NAME).running
        assert is_kept == (word != "died")
    details = JobRun.objects.filter(is_failure=True).values_list("detail", flat=True)
    assert all("It died in the middle: it began at " in detail for detail in details)
    assert len(details) == 2


@pytest.mark.django_db(transaction=True)
def test_a_long_run_says_that_it_lives(people: People) -> None:
    """A real process, whose minutes are short."""
    code = "import time; from operations import job_records as records\nrecords.BEAT_SECONDS = 0.05\n"
    code += f"with records.job({NAME!r}): print(1, flush=True); time.sleep(600)"
    with in_a_process(code) as process:
        assert process.stdout is not None
        process.stdout.readline()
        heard: set[str] = set()
        ends_at = time.monotonic() + 60
        while len(heard) < 3 and time.monotonic() < ends_at:
            [run] = JobState.objects.get(name=NAME).running.values()
            heard.add(run["heard_at"])
            time.sleep(0.05)
        assert len(heard) >= 3
        page = operator_client("root", is_superuser=True).get(PAGE).content.decode()
        assert f"last heard of at {max(heard)[:10]}" in page
        process.kill()


@pytest.mark.django_db
def test_what_is_under_way_is_not_begun_twice_by_the_clock(
    redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("billing.reconciliation.runs.FIRST_HOUR", 0)
    for name, run in (("reconcile", reconcile_due), ("ledger_check", check_ledger_due)):
        with job(name):
            run()
            assert not ReconciliationRun.objects.exists()
        run()
        assert ReconciliationRun.objects.exists()
        done = ReconciliationRun.objects.count()
        run()
        assert ReconciliationRun.objects.count() == done
        ReconciliationRun.objects.update(ended_at=None)  # As if it had been killed in the middle.
        run()
        assert ReconciliationRun.objects.count() > done
        ReconciliationRun.objects.all().delete()


@pytest.mark.django_db
def test_a_job_that_does_only_a_part_has_failed(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ValueError("no room")

    monkeypatch.setattr("billing.maintenance.expire_due_lots", fail)
    tasks.maintain()
    assert "the expiry of credit lots failed" in JobState.objects.get(name="maintenance").last_failure
    settings.PRICE_LISTS = {"acme": "http://127.0.0.1:9/"}
    tasks.draft_price_drifts()
    assert JobState.objects.get(name="price_drift").failures_in_a_row == 1
    Customer(make_organization("Ann")).give(USD, at(10, 1))
    monkeypatch.setattr("billing.documents.closing.close_month", fail)
    tasks.write_documents()
    assert "1 organizations could not be closed" in JobState.objects.get(name="documents").last_failure


@pytest.mark.django_db
def test_due_work_is_done_here_without_a_worker(redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when workers and their broker are away: usage is settled by whoever types the command."""
    waits = dataclasses.replace(reap_shards()[3], waiting_events=1)
    settled: list[list[int]] = []
    monkeypatch.setattr(tasks, "reap_shards", lambda: [waits])
    monkeypatch.setattr(tasks, "settle_waiting", lambda shards, *, seconds: settled.append(shards))
    monkeypatch.setattr(tasks.settle_shards, "apply_async", None)
    call_command("run_job", "due_work", stdout=StringIO())
    assert settled == [[3]]


@pytest.mark.django_db
def test_a_person_has_the_books_compared_whenever_they_want(redis_client: redis.Redis) -> None:
    for count in (1, 2):
        for name, source in (("reconcile", "admission"), ("ledger_check", "ledger")):
            call_command("run_job", name, stdout=StringIO())
            assert ReconciliationRun.objects.filter(source=source, day=None).count() == count


@pytest.mark.django_db(transaction=True)
def test_a_record_that_cannot_be_written_stops_no_work() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE operations_jobstate RENAME TO gone")
    try:
        done = []
        with job(NAME):
            done.append(True)
        assert done
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE gone RENAME TO operations_jobstate")


@pytest.mark.django_db
def test_the_tasks_themselves_are_noted(settings: Any) -> None:
    tasks.maintain()
    assert JobState.objects.get(name="maintenance").last_done_at is not None


@pytest.mark.django_db
def test_old_runs_are_forgotten() -> None:
    with job(NAME):
        pass
    assert forget_old_runs(now=timezone.now()) == 0
    assert forget_old_runs(now=timezone.now() + timedelta(days=31)) == 1


def test_the_page_shows_every_job_and_runs_one_now(operator: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="boom"), job("documents"):
        raise ValueError("boom <b>")
    page = html.unescape(operator.get(PAGE).content.decode())
    for entry in REGISTRY:
        assert entry.what in page
    assert "failing" in page
    assert "boom <b>" in page
    asked: list[Job] = []
    monkeypatch.setattr("operations.admin.jobs.run_now", asked.append)
    answer = operator.post(f"{PAGE}{NAME}/run/", follow=True)
    assert f"A worker was asked to run {NAME} now." in answer.content.decode()
    assert asked == [BY_NAME[NAME]]
    assert operator.post(f"{PAGE}none/run/").status_code == 404
    assert operator.get(f"{PAGE}{NAME}/run/").status_code == 405


def test_staff_needs_the_permission(people: People) -> None:
    person = make_person("support", is_staff=True)
    assert client_of(person).get(PAGE).status_code == 403
    person.user_permissions.add(Permission.objects.get(codename="view_jobrun"))
    client = client_of(type(person).objects.get(pk=person.pk))
    page = client.get(PAGE)
    assert page.status_code == 200
    assert "Run now" not in page.content.decode()
    assert client.post(f"{PAGE}{NAME}/run/").status_code == 403
