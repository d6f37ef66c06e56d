import pytest
from django.test import Client


def test_healthz_asks_nobody() -> None:
    """Without the database fixture any query would raise."""
    response = Client().get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_healthz_is_only_read() -> None:
    """Whoever sends something else is told what to do, not that a form has expired."""
    assert Client(enforce_csrf_checks=True).post("/healthz").status_code == 405


@pytest.mark.django_db
def test_readyz_asks_postgres_and_redis() -> None:
    response = Client().get("/readyz")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "postgres": "ok", "redis": "ok"})


@pytest.mark.django_db
def test_readyz_names_what_is_away(redis_away: None) -> None:
    response = Client().get("/readyz")
    assert response.status_code == 503
    assert response.json() == {"status": "unavailable", "postgres": "ok", "redis": "unreachable"}
