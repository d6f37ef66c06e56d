"""A Redis that would lose money is told at start and in `status`, and production does not start on it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.management import call_command

from billing.admission.durability import UNKNOWN, UnfitRedisError, check_at_start, find_shortcomings
from tests.support.live_stack import ROOT

SETTINGS = ("maxmemory-policy", "appendonly", "appendfsync")


@pytest.fixture(autouse=True)
def _as_it_was(redis_client: redis.Redis) -> Iterator[None]:
    before: Any = {name: redis_client.config_get(name)[name] for name in SETTINGS}
    for name, value in zip(SETTINGS, ("noeviction", "yes", "always"), strict=True):
        redis_client.config_set(name, value)
    yield
    for name in reversed(SETTINGS):
        redis_client.config_set(name, before[name])


@pytest.mark.single_redis
def test_a_redis_as_it_should_be_has_no_shortcomings() -> None:
    assert find_shortcomings() == []
    check_at_start()


@pytest.mark.single_redis
@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl", "allkeys-random"])
def test_production_refuses_a_redis_that_evicts(redis_client: redis.Redis, settings: Any, policy: str) -> None:
    redis_client.config_set("maxmemory-policy", policy)
    check_at_start()  # Elsewhere it is told.
    settings.PRODUCTION = True
    with pytest.raises(UnfitRedisError, match=f"maxmemory-policy {policy}, and it must be noeviction"):
        check_at_start()


@pytest.mark.single_redis
def test_a_log_that_is_not_written_at_once_is_told(
    redis_client: redis.Redis, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.PRODUCTION = True
    redis_client.config_set("appendfsync", "everysec")
    check_at_start()
    assert "appendfsync everysec" in caplog.text
    redis_client.config_set("appendonly", "no")
    check_at_start()
    assert "appendonly no" in caplog.text


@pytest.mark.single_redis
@pytest.mark.django_db
def test_what_a_managed_redis_keeps_to_itself_is_unknown(redis_client: redis.Redis, settings: Any) -> None:
    redis_client.execute_command("ACL", "SETUSER", "managed", "on", ">secret", "~*", "&*", "+@all", "-config")
    address = settings.REDIS_URL.rpartition("@")[2].removeprefix("redis://")
    settings.REDIS_URL = f"redis://managed:secret@{address}"
    try:
        assert [item.text.split(",")[0] for item in find_shortcomings()] == [f"Redis has appendfsync {UNKNOWN}"]
        settings.PRODUCTION = True
        check_at_start()
    finally:
        redis_client.execute_command("ACL", "DELUSER", "managed")


@pytest.mark.single_redis
@pytest.mark.django_db
def test_status_names_it_and_ends_with_1(redis_client: redis.Redis) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command("status", stdout=out)
    assert "maxmemory-policy allkeys-lru" in out.getvalue()


# As the server does that its operators start: what only ends a coroutine is no end to it.
SERVE = (
    "import uvicorn; uvicorn.run('crossmodel_site.asgi:application', port=find_free_port(), log_level='warning',"
    " ws='none')"
)


@pytest.mark.single_redis
def test_neither_gateway_nor_worker_starts_on_it_in_production(redis_client: redis.Redis, tmp_path: Path) -> None:
    redis_client.config_set("maxmemory-policy", "allkeys-lru")
    environment = {**os.environ, "CROSSMODEL_DATA": str(tmp_path)}
    for start in (
        SERVE,
        "from celery.signals import worker_init; worker_init.send(sender=None)",
    ):
        program = (
            "import django; from django.conf import settings; django.setup(); settings.PRODUCTION = True;"
            f"import crossmodel_site.celery; from crossmodel_site.embedded.ports import find_free_port; {start}"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            check=False,
            timeout=60,
            capture_output=True,
            text=True,
            env=environment,
        )
        assert done.returncode != 0
        assert "Traceback" not in done.stderr or start != SERVE
        assert "maxmemory-policy allkeys-lru, and it must be noeviction" in done.stderr
