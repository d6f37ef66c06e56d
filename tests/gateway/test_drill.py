"""Five incidents, made for real; each test does what docs/operating.md says, and ends where that says it is over.

The commands of the runbook are called as an operator types them. Sections are named, and one that is gone fails here.
"""

import io
import json
import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from accounts.keys import change_key
from accounts.models import User
from billing.catalog.price_versions import PriceDraft, draft_price, stored_tiers
from billing.corrections.refunds import refunded_nanos
from billing.corrections.rerating import current_costs
from billing.models import LanguageModel, PriceVersion, Upstream, UsageRecord
from billing.money import format_usd
from tests.docs.test_metrics_document import anchors_of
from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.gateway.provider_keys import BAD_KEY, GOOD_KEY, KEYS_VARIABLE
from tests.support.extra_gateway import extra_gateway
from tests.support.live_stack import HTTP, LiveStack, Tenant, body
from tests.support.people import make_person
from tests.support.settled_usage import billed_event, settle

pytestmark = pytest.mark.keeps_redis
RUNBOOK = anchors_of(Path(__file__).parents[2] / "docs/operating.md")
REPLY = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
    "stop_sequence": None, "content": [{"type": "text", "text": "Hello."}],
    "usage": {"input_tokens": 9, "output_tokens": 5},
}  # fmt: skip
REFUSAL = {"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}


class Provider:
    """A provider that can be switched off, and that takes one key only once it is told which."""

    def __init__(self) -> None:
        self.key = ""
        self.port = 0
        self._server: ThreadingHTTPServer | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("content-length") or 0))
                is_taken = not provider.key or self.headers["x-api-key"] == provider.key
                content = json.dumps(REPLY if is_taken else REFUSAL).encode()
                self.send_response(200 if is_taken else 401)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = _answer  # noqa: N815  http.server's own names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
        self._server = None


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.stop()


@pytest.fixture
def tenant(fragile: LiveStack) -> Tenant:
    return fragile.make_tenant()


@pytest.fixture
def operator(fragile: LiveStack) -> User:
    found = User.objects.filter(email="operator@example.org").first()
    return found or make_person("operator", is_staff=True, is_superuser=True)


def manage(*arguments: str) -> str:
    """Call a command as an operator does, and return what it says."""
    out = io.StringIO()
    try:
        call_command(*arguments, stdout=out)
    except SystemExit:  # `status` ends so when a person should look.
        pass
    except CommandError as error:
        raise AssertionError(f"{arguments}: {error}\n{out.getvalue()}") from error
    return out.getvalue()


def section(name: str) -> None:
    assert name in RUNBOOK, f"The runbook has no section {name} any more."


def told(upstream: str) -> str:
    """What `manage.py status` says of an upstream; "" when it says nothing."""
    lines = [line for line in manage("status").splitlines() if f"upstream {upstream}:" in line]
    assert all(line.startswith("!") for line in lines)
    return " ".join(lines)


def sell_at(fragile: LiveStack, tenant: Tenant, provider: Provider) -> SoldModel:
    return sell_catalog_model(fragile, tenant, [fragile.base_url], upstream_urls=[provider.url])


def test_a_provider_is_down(fragile: LiveStack, tenant: Tenant, provider: Provider) -> None:
    section("an-upstream-is-in-trouble")
    sold = sell_at(fragile, tenant, provider)
    provider.stop()

    def is_told() -> bool:
        assert fragile.post(tenant, model=sold.model_id).status_code == 503
        return "breaker open" in told(sold.upstreams[0])

    fragile.wait_until(is_told, "status tells of the outage")
    unserved = fragile.post(tenant, model=sold.model_id)
    assert (unserved.status_code, unserved.json()["error"]["code"]) == (503, "no_route")
    assert int(unserved.headers["retry-after"]) > 0
    provider.start()  # Nothing has to be done.
    fragile.wait_until(lambda: fragile.post(tenant, model=sold.model_id).status_code == 200, "it serves again")
    fragile.wait_until(lambda: told(sold.upstreams[0]) == "", "status has no line for the upstream")


def test_a_provider_refuses_our_credential(fragile: LiveStack, tenant: Tenant, provider: Provider) -> None:
    section("an-upstream-is-in-trouble")
    sold = sell_at(fragile, tenant, provider)
    Upstream.objects.filter(name=sold.upstreams[0]).update(credential_env=KEYS_VARIABLE, profile={})
    Upstream.objects.get(name=sold.upstreams[0]).save()
    provider.key = GOOD_KEY

    def ask(base_url: str) -> int:
        answer = HTTP.post(base_url + "/v1/messages", headers=tenant.headers, json=body(model=sold.model_id))
        return answer.status_code

    with extra_gateway(fragile, "drill-before", **{KEYS_VARIABLE: BAD_KEY}) as before:

        def is_told() -> bool:
            assert ask(before.base_url) in (502, 503)
            return "suspended credential" in told(sold.upstreams[0])

        fragile.wait_until(is_told, "status tells of the credential")
        assert BAD_KEY not in before.log() + told(sold.upstreams[0])
    # The new credential goes into the variable that the catalog names, and the gateway is started again.
    with extra_gateway(fragile, "drill-after", **{KEYS_VARIABLE: f"{GOOD_KEY},{BAD_KEY}"}) as after:
        assert [ask(after.base_url) for _ in range(3)] == [200, 200, 200]


def test_a_worker_is_dead(fragile: LiveStack, tenant: Tenant) -> None:
    section("settlement-is-behind")
    fragile.wait_until_quiet()
    assert fragile.worker is not None
    os.killpg(fragile.worker.pid, signal.SIGKILL)
    fragile.worker.wait()
    try:
        answers = [fragile.post(tenant) for _ in range(3)]
        assert {answer.status_code for answer in answers} == {200}, "Clients notice nothing."
        assert waiting_events() >= 3
    finally:
        fragile.start_worker()  # Start them.
    records = [fragile.record(answer) for answer in answers]
    assert len(records) == 3
    fragile.wait_until(lambda: waiting_events() == 0, "settlement has caught up")


def waiting_events() -> int:
    checks = json.loads(manage("status", "--json"))["checks"]
    return int(next(check["value"] for check in checks if check["name"] == "events waiting"))


def test_a_price_is_wrong(fragile: LiveStack, tenant: Tenant, operator: User) -> None:
    section("a-price-is-wrong")
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url], input=300_000_000)  # A hundred times too much.
    model = LanguageModel.objects.get(model_id=sold.model_id)
    wrong = PriceVersion.objects.get(language_model=model)
    now = datetime.now(UTC)
    settle([billed_event(tenant.key, wrong, at=now - timedelta(days=1))])  # A day is priced again once it is over.
    change_key(tenant.key, fields={"name": "told of it"})  # No gateway saw that request: Redis learns of it so.
    record = UsageRecord.objects.get(
        organization_id=tenant.organization.pk, admitted_at__date=now.date() - timedelta(days=1)
    )
    assert sold.model_id in manage("margin", "--by", "model", "--from", f"{now.date() - timedelta(days=1)}")
    right = PriceDraft(
        now, "the provider's list", now.date(),
        {**stored_tiers(wrong), "input": ((0, 3_000_000),)},
    )  # fmt: skip
    version = draft_price(model, right, created_by="somebody@example.org")
    assert f"{version.pk}" in manage("approve_prices")
    manage("approve_prices", str(version.pk), "--actor", operator.email)
    window = ("--from", f"{now.date() - timedelta(days=1)}", "--to", f"{now.date()}")
    plan = ("rerate", *window, "--model", sold.model_id, "--price-version", str(version.pk))
    assert tenant.organization.slug in manage(*plan)
    assert current_costs([record.request_id]) == {}, "It only showed what would change."
    manage(*plan, "--apply", "--reason", "The price was wrong.", "--actor", operator.email, "--yes")
    after = current_costs([record.request_id])[record.request_id]
    assert 0 < after < record.cost_nanos / 2
    assert "No difference" in manage(*plan)
    fragile.wait_until(
        lambda: fragile.record(fragile.post(tenant, model=sold.model_id)).price_version_id == version.pk,
        "the gateway has read the price, which it does every few seconds",
    )


def test_a_customer_disputes_a_bill(fragile: LiveStack, tenant: Tenant, operator: User) -> None:
    section("a-customer-says-that-a-bill-is-wrong")
    answer = fragile.post(tenant)
    record = fragile.record(answer)
    quoted = answer.headers["request-id"]
    receipt = fragile.get(tenant, f"/api/v1/generation?id={quoted}")
    assert receipt.status_code == 200
    refund = ("refund", quoted, "--reason", "The reply was empty.", "--actor", operator.email)
    assert "Dry run" in manage(*refund, "--dry-run")
    said = manage(*refund, "--yes", "--idempotency-key", "ticket-17")
    assert f"{format_usd(record.cost_nanos)} USD" in said
    manage(*refund, "--yes", "--idempotency-key", "ticket-17")
    assert refunded_nanos(record) == record.cost_nanos, "Twice gives back once."
    fragile.wait_until_quiet()
    assert "0 breaks" in manage("check_ledger", "--quiet")
