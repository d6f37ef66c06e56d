"""Breakers and credentials of upstreams, in a CrossModel whose breakers open soon and with two gateways."""

from io import StringIO

import pytest
from django.core.management import call_command

from billing.models import FailedRequest, Upstream, UsageRecord
from billing.upstream_health.sharing import read_upstream_health
from crossmodel_site.embedded.ports import find_free_port
from gateway.upstreams.pool import fingerprint
from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.gateway.provider_keys import (
    BAD_KEY,
    BOTH_KEYS,
    GOOD_KEY,
    KEYS_VARIABLE,
    keys_used,
    sell_with_two_credentials,
)
from tests.gateway.scripted_upstream import COMPLETE, START, scripted_upstream, streamed, whole
from tests.gateway.wire import post_at_once
from tests.support.live_stack import HTTP, LiveStack, Tenant


@pytest.fixture
def tenant(fragile: LiveStack) -> Tenant:
    return fragile.make_tenant()


def test_an_upstream_that_fails_is_left_alone_and_the_next_route_serves(fragile: LiveStack, tenant: Tenant) -> None:
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url], routes=2)
    fragile.sandbox.control("status=529", model=sold.upstream_models[0])
    served = [fragile.post(tenant, model=sold.model_id) for _ in range(6)]
    assert [answer.status_code for answer in served] == [200] * 6
    tried = [[attempt["upstream"] for attempt in fragile.record(answer).attempts] for answer in served]
    first, second = sold.upstreams
    assert tried == [[first, second]] * 3 + [[second]] * 3
    # Another organization is not refused for it: it finds out for itself.
    bob = fragile.make_tenant()
    answer = fragile.post(bob, model=sold.model_id)
    assert answer.status_code == 200
    assert [attempt["upstream"] for attempt in fragile.record(answer).attempts] == [first, second]


def test_an_upstream_that_cannot_be_reached_is_left_alone_by_everybody(fragile: LiveStack, tenant: Tenant) -> None:
    nowhere = f"http://127.0.0.1:{find_free_port()}"
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url], upstream_urls=[nowhere])
    answers = [fragile.post(tenant, model=sold.model_id) for _ in range(4)]
    assert [answer.json()["error"]["code"] for answer in answers] == ["upstream_unreachable"] * 3 + ["no_route"]
    assert fragile.post(fragile.make_tenant(), model=sold.model_id).json()["error"]["code"] == "no_route"
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 5
    found = fragile.wait_until(
        lambda: [item for item in read_upstream_health() if item.upstream == sold.upstreams[0]], "others can know"
    )
    assert found[0].subject == "breaker"
    shown = StringIO()
    with pytest.raises(SystemExit):
        call_command("status", stdout=shown)
    assert f"! upstream {sold.upstreams[0]}: breaker open for" in shown.getvalue()


def test_the_prompt_of_one_organization_takes_an_upstream_from_nobody_else(fragile: LiveStack, tenant: Tenant) -> None:
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url])
    for directive in ("status=500", "status=403", "status=401", "status=529", "html"):
        fragile.sandbox.control(directive, model=sold.upstream_models[0], times=6)
        for _ in range(6):
            assert fragile.post(tenant, model=sold.model_id).status_code in (402, 502, 503)
        fragile.sandbox.clear()
        assert fragile.post(fragile.make_tenant(), model=sold.model_id).status_code == 200, directive


def test_a_refusal_of_what_was_asked_is_told_once_and_not_tried_elsewhere(fragile: LiveStack, tenant: Tenant) -> None:
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url], routes=2)
    fragile.sandbox.control("status=403", model=sold.upstream_models[0])
    answer = fragile.post(tenant, model=sold.model_id)
    assert (answer.status_code, answer.json()["error"]["code"]) == (402, "upstream_refused_request")
    assert answer.headers["x-should-retry"] == "false"
    assert len([call for call in fragile.sandbox.journal() if call.model in sold.upstream_models]) == 1


def test_what_a_client_can_bring_about_in_a_stream_leaves_the_upstream_in_use(
    fragile: LiveStack, tenant: Tenant
) -> None:
    """A provider that answers 200 may still say in its stream that it refuses the request."""
    refusal = b'{"type":"error","error":{"type":"invalid_request_error","message":"This I do not do."}}'
    with scripted_upstream() as upstream:
        sold = sell_catalog_model(fragile, tenant, [fragile.base_url], upstream_urls=[upstream.url])
        for events in ([("error", refusal)], [START, ("error", refusal)]):
            upstream.script = streamed(*events)
            for _ in range(4):
                assert "upstream_error" in fragile.post(tenant, model=sold.model_id, stream=True).text
        upstream.script = streamed(*COMPLETE)
        assert "message_stop" in fragile.post(tenant, model=sold.model_id, stream=True).text


def test_an_upstream_that_says_in_its_stream_that_it_is_overloaded(fragile: LiveStack, tenant: Tenant) -> None:
    overload = b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}'
    with scripted_upstream() as upstream:
        sold = sell_catalog_model(fragile, tenant, [fragile.base_url], upstream_urls=[upstream.url])
        upstream.script = streamed(("error", overload))
        answer = fragile.post(tenant, model=sold.model_id, stream=True)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "upstream_overloaded")
    assert answer.headers["retry-after"] == "1"
    fragile.wait_until(lambda: FailedRequest.objects.filter(organization_id=tenant.organization.pk), "it is released")
    [failed] = FailedRequest.objects.filter(organization_id=tenant.organization.pk)
    assert (failed.error_code, [attempt["outcome"] for attempt in failed.attempts]) == (
        "upstream_overloaded",
        ["upstream_overloaded"],
    )


def test_an_upstream_that_is_well_again_is_probed_and_serves(fragile: LiveStack, tenant: Tenant) -> None:
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url], routes=2)
    fragile.sandbox.control("status=529", model=sold.upstream_models[0], times=3)
    tried = [[attempt["upstream"] for attempt in ask(fragile, tenant, sold).attempts] for _ in range(4)]
    assert tried[-1] == [sold.upstreams[1]]
    fragile.wait_until(lambda: ask(fragile, tenant, sold).upstream == sold.upstreams[0], "the breaker has closed")
    assert {ask(fragile, tenant, sold).upstream for _ in range(3)} == {sold.upstreams[0]}


def ask(fragile: LiveStack, tenant: Tenant, sold: SoldModel) -> UsageRecord:
    """Return the record of a request, which was served whoever served it."""
    answer = fragile.post(tenant, model=sold.model_id)
    assert answer.status_code == 200
    return fragile.record(answer)


def test_an_upstream_gets_no_more_calls_at_once_than_its_profile_says(fragile: LiveStack, tenant: Tenant) -> None:
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url])
    [upstream] = Upstream.objects.filter(name=sold.upstreams[0])
    upstream.profile = {**upstream.profile, "max_concurrent": 1}
    upstream.save()

    def statuses() -> list[int]:
        calls = [(tenant, "[[sandbox: delay=500]]")] * 3
        answers = post_at_once(fragile.base_url, calls, model=sold.model_id)
        assert {answer.json()["error"]["code"] for answer in answers if answer.status_code != 200} <= {"no_route"}
        return sorted(answer.status_code for answer in answers)

    fragile.wait_until(lambda: statuses() == [200, 503, 503], "the profile is known")
    assert fragile.post(tenant, model=sold.model_id).status_code == 200


def test_a_clients_own_fault_opens_no_breaker(fragile: LiveStack, tenant: Tenant) -> None:
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url])
    fragile.sandbox.control("status=400", model=sold.upstream_models[0], times=5)
    assert [fragile.post(tenant, model=sold.model_id).status_code for _ in range(5)] == [400] * 5
    fragile.sandbox.control("status=429", model=sold.upstream_models[0], times=5)
    assert [fragile.post(tenant, model=sold.model_id).status_code for _ in range(5)] == [503] * 5
    assert fragile.post(tenant, model=sold.model_id).status_code == 200


def test_what_an_upstream_does_not_have_opens_no_breaker(fragile: LiveStack, tenant: Tenant) -> None:
    """Clients name files and containers there; a 404 for one says nothing about the next request."""
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url])
    fragile.sandbox.control("status=404", model=sold.upstream_models[0], times=5)
    assert [fragile.post(tenant, model=sold.model_id).status_code for _ in range(5)] == [502] * 5
    assert fragile.post(tenant, model=sold.model_id).status_code == 200


def test_with_no_route_left_nothing_is_called_and_nothing_billed(fragile: LiveStack, tenant: Tenant) -> None:
    sold = sell_catalog_model(fragile, tenant, [fragile.base_url])
    fragile.sandbox.control("status=500", model=sold.upstream_models[0])
    assert [fragile.post(tenant, model=sold.model_id).status_code for _ in range(3)] == [502] * 3
    calls = len(fragile.sandbox.journal())
    refused = fragile.post(tenant, model=sold.model_id)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_route")
    assert int(refused.headers["retry-after"]) >= 1
    assert len(fragile.sandbox.journal()) == calls
    fragile.wait_until_quiet()
    assert fragile.records(tenant) == []


def test_tokens_are_counted_with_the_keys_in_rotation(fragile: LiveStack, tenant: Tenant) -> None:
    sold = sell_with_two_credentials(fragile, tenant)
    question = {"model": sold.model_id, "messages": [{"role": "user", "content": "How many?"}]}
    for _ in range(2):
        counted = HTTP.post(fragile.base_url + "/v1/messages/count_tokens", headers=tenant.headers, json=question)
        assert counted.status_code == 200
        assert "x-crossmodel-token-count" not in counted.headers
    assert keys_used(fragile, sold, "count_tokens") == BOTH_KEYS


def test_a_credential_that_the_provider_takes_is_not_suspended_for_an_answer(
    fragile: LiveStack, tenant: Tenant
) -> None:
    """The sandbox refuses the call, whichever credential it came with, and takes both when it is asked neutrally."""
    sold = sell_with_two_credentials(fragile, tenant)
    fragile.sandbox.control("status=401", model=sold.upstream_models[0], times=1)
    answer = fragile.post(tenant, model=sold.model_id)
    assert answer.status_code == 200
    assert [attempt["status"] for attempt in fragile.record(answer).attempts] == [401, 200]
    fragile.sandbox.control("status=401", model=sold.upstream_models[0], times=9)
    before = len(fragile.sandbox.journal())
    refused = fragile.post(tenant, model=sold.model_id)
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "upstream_refused_credential")
    assert len(fragile.sandbox.journal()) == before + 2, "no request walks through all credentials"
    fragile.sandbox.clear()
    assert fragile.post(tenant, model=sold.model_id).status_code == 200
    assert [item for item in read_upstream_health() if item.upstream == sold.upstreams[0]] == []


def test_a_credential_that_is_refused_for_itself_is_suspended(fragile: LiveStack, tenant: Tenant) -> None:
    """This upstream refuses whatever it is asked, and so the neutral question too."""
    with scripted_upstream() as upstream:
        sold = sell_catalog_model(fragile, tenant, [fragile.base_url], upstream_urls=[upstream.url])
        Upstream.objects.filter(name=sold.upstreams[0]).update(credential_env=KEYS_VARIABLE)
        Upstream.objects.get(name=sold.upstreams[0]).save()
        error = b'{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}'
        upstream.script = whole(error, status="401 Unauthorized")

        def closed() -> bool:
            answer = fragile.post(tenant, model=sold.model_id)
            return bool(answer.json()["error"]["code"] == "no_route")

        fragile.wait_until(closed, "both are suspended")
        assert {line.split(b" ", 2)[1] for line in upstream.requests} == {b"/v1/messages", b"/v1/models"}
        assert all(b"x-api-key: provider-key" in request for request in upstream.requests[-2:])
    refused = fragile.post(fragile.make_tenant(), model=sold.model_id)
    assert int(refused.headers["retry-after"]) > 200
    assert refused.headers["x-should-retry"] == "false"
    marks = {f"credential {fingerprint(credential)}" for credential in (GOOD_KEY, BAD_KEY)}
    fragile.wait_until(
        lambda: {item.subject for item in read_upstream_health() if item.upstream == sold.upstreams[0]} == marks,
        "others are told",
    )
