"""/metrics of a running gateway: who may read it, and what it says after requests that were served and refused."""

import re
import threading
from typing import Any

import httpx
import pytest
from pytest_django import Settings

from crossmodel_site import metrics as metrics_page
from crossmodel_site.metrics import Metrics
from operations.gauges import Gauge
from tests.support.live_stack import HTTP, LiveStack, Tenant

pytestmark = pytest.mark.keeps_redis
SAMPLE = re.compile(r"^(crossmodel_\w+)(?:\{(.*)\})? ([0-9.e+-]+)$", re.MULTILINE)


def read(stack: LiveStack) -> dict[tuple[str, str], float]:
    answer = HTTP.get(stack.base_url + "/metrics")
    assert answer.status_code == 200
    return {(name, labels): float(value) for name, labels, value in SAMPLE.findall(answer.text)}


def test_requests_refusals_tokens_and_settlement_are_counted(stack: LiveStack, alice: Tenant) -> None:
    body = {
        "model": "anthropic/claude-sonnet-4.6",
        "max_tokens": 20,
        "messages": [{"role": "user", "content": "[[sandbox: tokens=7]] Hi"}],
    }
    before = read(stack)
    assert HTTP.post(stack.base_url + "/v1/messages", json=body, headers=alice.headers).status_code == 200
    assert HTTP.post(stack.base_url + "/v1/messages", json=body).status_code == 401

    def has_counted() -> bool:
        after = read(stack)
        return all(
            after.get(key, 0) - before.get(key, 0) == grown
            for key, grown in {
                ("crossmodel_requests_total", 'endpoint="messages",status="200"'): 1,
                ("crossmodel_requests_total", 'endpoint="messages",status="401"'): 1,
                ("crossmodel_errors_total", 'code="missing_api_key"'): 1,
                ("crossmodel_endings_total", 'ending="provider"'): 1,
                ("crossmodel_tokens_total", 'component="output",model="anthropic/claude-sonnet-4.6"'): 7,
                ("crossmodel_admission_seconds_count", ""): 1,
                ("crossmodel_close_seconds_count", ""): 1,
            }.items()
        )

    stack.wait_until(has_counted, "the requests are counted")  # The page is made again every five seconds.


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via"])
def test_what_came_through_a_proxy_gets_a_404(stack: LiveStack, header: str) -> None:
    """A proxy on this very machine seems to be this machine; it speaks for strangers."""
    answer = httpx.get(stack.base_url + "/metrics", headers={header: "192.0.2.1"}, timeout=30)
    assert answer.status_code == 404
    assert "crossmodel_" not in answer.text


def scope(address: str, *headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"client": (address, 1), "headers": list(headers)}


def test_who_may_see_them(settings: Settings) -> None:
    metrics = Metrics()
    assert metrics.may_see(scope("127.0.0.1"))
    assert not metrics.may_see(scope("192.0.2.1"))
    assert not metrics.may_see({"client": None, "headers": []})
    settings.METRICS_NETWORKS = ["192.0.2.0/24"]
    assert metrics.may_see(scope("192.0.2.1"))
    settings.METRICS_TOKEN = "long-secret"
    assert not metrics.may_see(scope("192.0.2.1"))
    assert not metrics.may_see(scope("192.0.2.1", (b"authorization", b"Bearer other")))
    assert metrics.may_see(scope("198.51.100.1", (b"authorization", b"Bearer long-secret")))


async def test_a_store_that_hangs_hides_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    may_end = threading.Event()

    def read_gauges(store: str) -> list[Any]:
        if store == "postgres":
            may_end.wait(30)
        return [("waiting_events", Gauge("Usage events that wait for settlement."), [])]

    monkeypatch.setattr(metrics_page, "read_gauges", read_gauges)
    monkeypatch.setattr(metrics_page, "MAX_LOOK_SECONDS", 1.0)
    monkeypatch.setattr(metrics_page, "LOOK_SECONDS", 0.0)
    metrics, sent = Metrics(), []

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        for _ in range(3):
            sent.clear()
            await metrics({"method": "GET"}, send)
            text = sent[1]["body"].decode()
            assert 'crossmodel_store_up{store="redis"} 1.0' in text
            assert 'crossmodel_store_up{store="postgres"} 0.0' in text
            assert "crossmodel_holds_in_flight" in text
    finally:
        may_end.set()
