"""Breakers and keys of upstreams, in a CrossModel whose breakers open soon and with two gateways."""

from collections.abc import Iterator
from contextlib import suppress
from io import StringIO

import pytest
from django.core.management import call_command
from pytest_django.plugin import DjangoDbBlocker

from billing.admission.worker import read_upstream_news
from billing.models import Upstream
from gateway.upstreams.pool import fingerprint
from tests.gateway.offers import offer
from tests.support.world import Caller, World, standing_world, visit

GOOD_KEY, BAD_KEY = "provider-key-that-works", "provider-key-that-does-not"
KEYS_VARIABLE = "TEST_PROVIDER_KEYS"


@pytest.fixture(scope="module")
def _fragile_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    keys = {KEYS_VARIABLE: f"{BAD_KEY},{GOOD_KEY}"}
    folder = tmp_path_factory.mktemp("fragile")
    with standing_world(folder, "fragile", CROSSMODEL_BREAKER_FAILURES="3", **keys) as world:
        yield world


@pytest.fixture
def fragile(_fragile_world: World, django_db_blocker: DjangoDbBlocker) -> Iterator[World]:
    with visit(_fragile_world, django_db_blocker) as world:
        yield world


@pytest.fixture
def caller(fragile: World) -> Caller:
    return fragile.caller()


def test_an_upstream_that_fails_is_left_alone_and_the_next_route_serves(fragile: World, caller: Caller) -> None:
    sold = offer(fragile, caller, [fragile.base_url], routes=2)
    fragile.sandbox.control("status=529", model=sold.upstream_models[0])
    served = [fragile.post(caller, model=sold.model_id) for _ in range(6)]
    assert [answer.status_code for answer in served] == [200] * 6
    tried = [[attempt["upstream"] for attempt in fragile.record(answer).attempts] for answer in served]
    first, second = sold.upstreams
    assert tried == [[first, second]] * 3 + [[second]] * 3
    news = fragile.wait_until(
        lambda: [item for item in read_upstream_news() if item.upstream == first], "the other gateways can know"
    )
    assert news[0].subject == "breaker"
    shown = StringIO()
    with suppress(SystemExit):  # It ends with 1 when other tests' events wait for too long.
        call_command("status", stdout=shown)
    assert f"upstream {first}" in shown.getvalue()


def test_a_clients_own_fault_opens_no_breaker(fragile: World, caller: Caller) -> None:
    sold = offer(fragile, caller, [fragile.base_url])
    fragile.sandbox.control("status=400", model=sold.upstream_models[0], times=5)
    assert [fragile.post(caller, model=sold.model_id).status_code for _ in range(5)] == [400] * 5
    fragile.sandbox.control("status=429", model=sold.upstream_models[0], times=5)
    assert [fragile.post(caller, model=sold.model_id).status_code for _ in range(5)] == [503] * 5
    assert fragile.post(caller, model=sold.model_id).status_code == 200


def test_with_no_route_left_nothing_is_called_and_nothing_billed(fragile: World, caller: Caller) -> None:
    sold = offer(fragile, caller, [fragile.base_url])
    fragile.sandbox.control("status=500", model=sold.upstream_models[0])
    assert [fragile.post(caller, model=sold.model_id).status_code for _ in range(3)] == [502] * 3
    calls = len(fragile.sandbox.journal())
    refused = fragile.post(caller, model=sold.model_id)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_route")
    assert int(refused.headers["retry-after"]) >= 1
    assert len(fragile.sandbox.journal()) == calls
    fragile.wait_until_quiet()
    assert fragile.records(caller) == []


def test_a_key_that_the_provider_refuses_is_parked_and_the_other_serves(fragile: World, caller: Caller) -> None:
    sold = offer(fragile, caller, [fragile.base_url])
    # From now on this upstream has two keys, of which the sandbox is told to refuse whichever comes first.
    Upstream.objects.filter(name=sold.upstreams[0]).update(
        credential_env=KEYS_VARIABLE, profile={"request_id_header": "x-crossmodel-request-id"}
    )
    Upstream.objects.get(name=sold.upstreams[0]).save()

    def uses_the_keys() -> bool:
        fragile.post(caller, model=sold.model_id)
        last_fours = {record.key_last4 for record in fragile.sandbox.journal() if record.model in sold.upstream_models}
        return bool(last_fours & {GOOD_KEY[-4:], BAD_KEY[-4:]})

    fragile.wait_until(uses_the_keys, "the keys are in use")
    fragile.sandbox.control("status=401", model=sold.upstream_models[0], times=1)
    answer = fragile.post(caller, model=sold.model_id)
    assert answer.status_code == 200
    assert [attempt["status"] for attempt in fragile.record(answer).attempts] == [401, 200]
    parked = fragile.wait_until(
        lambda: [item.subject for item in read_upstream_news() if item.upstream == sold.upstreams[0]], "it is told"
    )
    assert parked[0] in (f"key {fingerprint(GOOD_KEY)}", f"key {fingerprint(BAD_KEY)}")
