"""Probes: who is asked, how often, and what is said when one of them is away."""

import asyncio
import threading
from typing import Any

import pytest
from django.db import connection

from crossmodel_site import health
from crossmodel_site.embedded.ports import find_free_port
from crossmodel_site.health import Probes


async def ask(probes: Probes, path: str, method: str = "GET") -> tuple[int, bytes]:
    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await probes({"path": path, "method": method}, send)
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("path", ["/healthz", "/api/hello"])
async def test_healthz_asks_nobody(path: str) -> None:
    """Without the database fixture any query would raise."""
    probes = Probes()
    assert await ask(probes, path) == (200, b'{"status":"ok"}')
    assert await ask(probes, path, "HEAD") == (200, b"")
    assert (await ask(probes, path, "POST"))[0] == 405


@pytest.mark.django_db(transaction=True)
async def test_readyz_asks_postgres_and_redis_once_for_all() -> None:
    probes = Probes()
    answers = await asyncio.gather(*(ask(probes, "/readyz") for _ in range(200)))
    assert set(answers) == {(200, b'{"status":"ok","postgres":"ok","redis":"ok"}')}


@pytest.mark.django_db(transaction=True)
async def test_readyz_names_what_is_away(redis_away: None) -> None:
    status, body = await ask(Probes(), "/readyz")
    assert (status, body) == (503, b'{"status":"unavailable","postgres":"ok","redis":"unreachable"}')


@pytest.mark.django_db(transaction=True)
async def test_readyz_tells_of_a_postgres_that_went_and_came_back(monkeypatch: pytest.MonkeyPatch) -> None:
    probes = Probes()
    port = connection.settings_dict["PORT"]
    monkeypatch.setitem(connection.settings_dict, "PORT", find_free_port())
    assert (await ask(probes, "/readyz"))[1] == b'{"status":"unavailable","postgres":"unreachable","redis":"ok"}'
    monkeypatch.setitem(connection.settings_dict, "PORT", port)
    await asyncio.sleep(1.1)
    assert (await ask(probes, "/readyz"))[0] == 200


async def test_a_store_that_hangs_never_hides_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at it pile up, for what runs in a thread cannot be stopped."""
    may_end = threading.Event()

    def hang() -> str:
        may_end.wait(30)
        return health.OK

    monkeypatch.setattr(health, "_look_at_postgres", hang)
    monkeypatch.setattr(health, "MAX_LOOK_SECONDS", 1.0)
    monkeypatch.setattr(health, "LOOK_SECONDS", 0.0)
    probes = Probes()
    try:
        for _ in range(3):
            assert (await ask(probes, "/readyz"))[1] == (
                b'{"status":"unavailable","postgres":"unreachable","redis":"ok"}'
            )
    finally:
        may_end.set()
