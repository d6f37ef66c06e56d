"""Jobs are noted beside their work, the page says which need a person, and the registry is the schedule."""

import html
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.utils import timezone

from operations import tasks
from operations.jobs import BY_NAME, REGISTRY, Job, forget_old_runs, job, read_standings
from operations.models import JobRun, JobState
from tests.support.people import People, client_of, make_person

PAGE = "/admin/jobs/"
NAME = "maintenance"


@pytest.fixture
def operator(people: People) -> Client:
    person = make_person("operator", is_staff=True)
    person.is_superuser = True
    person.save()
    return client_of(person)


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
