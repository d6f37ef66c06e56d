"""Who is kept from an upstream by the probe of another, and what one gateway learns from the next: over real HTTP."""

import time

import pytest

from billing.models import Upstream
from crossmodel_site.embedded.ports import find_free_port
from gateway.upstreams.breaker import FIRST_OPEN_SECONDS, OTHERS_PROBE_SECONDS
from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.gateway.provider_keys import KEYS_VARIABLE
from tests.gateway.scripted_upstream import scripted_upstream, whole
from tests.gateway.wire import Connection
from tests.support.extra_gateway import extra_gateway
from tests.support.live_stack import HTTP, LiveStack, Tenant, body

HEARD_SECONDS = 1.0  # A few heartbeats of the stack.
REFUSED_KEY = b'{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}'


@pytest.fixture
def tenant(fragile: LiveStack) -> Tenant:
    return fragile.make_tenant()


def sell_at(fragile: LiveStack, tenant: Tenant, gateways: list[str], url: str) -> SoldModel:
    """Sell a model whose upstream cannot be reached, is left alone for it, and can be reached at `url` from now on."""
    nowhere = f"http://127.0.0.1:{find_free_port()}"
    sold = sell_catalog_model(fragile, tenant, gateways, upstream_urls=[nowhere])
    codes = [fragile.post(tenant, model=sold.model_id).json()["error"]["code"] for _ in range(4)]
    assert codes == ["upstream_unreachable"] * 3 + ["no_route"]
    upstream = Upstream.objects.get(name=sold.upstreams[0])
    upstream.base_url = url
    upstream.save()
    return sold


def sell_half_open(fragile: LiveStack, tenant: Tenant) -> SoldModel:
    sold = sell_at(fragile, tenant, [fragile.base_url], fragile.sandbox.url)
    time.sleep(FIRST_OPEN_SECONDS + 0.2)
    return sold


def test_a_poisoned_probe_is_its_senders_own_affair(fragile: LiveStack, tenant: Tenant) -> None:
    sold = sell_half_open(fragile, tenant)
    fragile.sandbox.control("status=500", model=sold.upstream_models[0], times=1)
    assert fragile.post(tenant, model=sold.model_id).json()["error"]["code"] == "upstream_error"
    assert [fragile.post(fragile.make_tenant(), model=sold.model_id).status_code for _ in range(3)] == [200] * 3


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("leaves", [False, True])
def test_a_probe_that_gets_no_answer_keeps_nobody_else_waiting(
    fragile: LiveStack, tenant: Tenant, *, leaves: bool, is_streamed: bool
) -> None:
    """Alice asks what takes long, and waits or leaves; Bob is served meanwhile, at once."""
    bob = fragile.make_tenant()
    sold = sell_half_open(fragile, tenant)
    fragile.sandbox.control("delay=4000", model=sold.upstream_models[0], times=1)
    with Connection(fragile.base_url) as connection:
        connection.send_message(tenant, model=sold.model_id, stream=is_streamed)
        asked = fragile.wait_until(
            lambda: [call for call in fragile.sandbox.journal() if call.model in sold.upstream_models], "it is asked"
        )
        assert len(asked) == 1, "the probe"
        if leaves:
            connection.reset()
        started = time.monotonic()
        assert fragile.post(bob, model=sold.model_id).status_code == 200
        assert time.monotonic() - started < OTHERS_PROBE_SECONDS


def test_what_one_gateway_met_the_other_knows(fragile: LiveStack, tenant: Tenant) -> None:
    """A breaker that one opened the other does not try, until it is over; then both serve."""
    with extra_gateway(fragile, "learner") as learner:
        sold = sell_at(fragile, tenant, [fragile.base_url, learner.base_url], fragile.sandbox.url)

        def ask_learner() -> tuple[int, str]:
            answer = HTTP.post(
                learner.base_url + "/v1/messages", headers=tenant.headers, json=body(model=sold.model_id)
            )
            return answer.status_code, answer.json().get("error", {}).get("code", "")

        # It hears of it without a call of its own, with which it could find out.
        time.sleep(HEARD_SECONDS)
        assert ask_learner() == (503, "no_route")
        assert [call for call in fragile.sandbox.journal() if call.model in sold.upstream_models] == []
        fragile.wait_until(lambda: ask_learner() == (200, ""), "it is over")
        assert fragile.post(tenant, model=sold.model_id).status_code == 200


def test_a_credential_that_one_gateway_suspended_the_other_does_not_use(fragile: LiveStack, tenant: Tenant) -> None:
    with extra_gateway(fragile, "careful") as careful, scripted_upstream() as upstream:
        upstream.script = whole(REFUSED_KEY, status="401 Unauthorized")
        sold = sell_catalog_model(fragile, tenant, [fragile.base_url, careful.base_url], upstream_urls=[upstream.url])
        Upstream.objects.filter(name=sold.upstreams[0]).update(credential_env=KEYS_VARIABLE)
        Upstream.objects.get(name=sold.upstreams[0]).save()

        def answer_of(base_url: str) -> str:
            answer = HTTP.post(base_url + "/v1/messages", headers=tenant.headers, json=body(model=sold.model_id))
            return str(answer.json()["error"]["code"])

        fragile.wait_until(lambda: answer_of(fragile.base_url) == "no_route", "both are suspended")
        time.sleep(HEARD_SECONDS)
        asked = len(upstream.requests)
        assert answer_of(careful.base_url) == "no_route"
        assert len(upstream.requests) == asked


def test_one_organization_leaves_room_to_be_read_without_a_client(fragile: LiveStack, tenant: Tenant) -> None:
    """Of four that may be read on, one organization's may be two: its third is cut, and another's is read on."""
    bob = fragile.make_tenant()
    with extra_gateway(fragile, "draining", CROSSMODEL_MAX_DRAINING_REQUESTS="4") as gateway:
        sold = sell_catalog_model(fragile, tenant, [gateway.base_url], bills_when_cancelled=True)
        fragile.sandbox.control("pace=100; tokens=60", model=sold.upstream_models[0])
        connections = [(who, Connection(gateway.base_url)) for who in (tenant, tenant, tenant, bob)]
        for who, connection in connections:
            connection.send_message(who, model=sold.model_id, stream=True)
        for _, connection in connections:
            connection.read_until(b"content_block_delta")
        for _, connection in connections:
            connection.reset()
        fragile.wait_until_quiet()
        sources = [sorted(record.usage_source for record in fragile.records(who)) for who in (tenant, bob)]
    assert sources == [["estimated", "provider", "provider"], ["provider"]]
