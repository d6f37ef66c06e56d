"""POST /v1/messages/count_tokens, and the small endpoints that clients call before they ask for anything."""

import httpx

from billing.models import Upstream
from tests.gateway.checks import assert_error
from tests.gateway.offers import offer
from tests.support.extra_gateway import ExtraGateway
from tests.support.world import MODEL, Caller, World

QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "How many tokens are these?"}]}


def count(world: World, caller: Caller, **fields: object) -> httpx.Response:
    return httpx.post(
        world.base_url + "/v1/messages/count_tokens?beta=true",
        headers=caller.headers,
        json={**QUESTION, **fields},
        timeout=10,
    )


def test_the_upstream_counts_and_nobody_pays(world: World, alice: Caller) -> None:
    answer = count(world, alice)
    assert answer.status_code == 200
    billed = world.post(alice, "How many tokens are these?").json()["usage"]
    assert answer.json() == {"input_tokens": billed["input_tokens"]}
    assert "x-crossmodel-token-count" not in answer.headers
    world.wait_until_quiet()
    assert len(world.records(alice)) == 1


def test_an_empty_balance_may_count(world: World) -> None:
    poor = world.caller(credit_usd="0")
    assert count(world, poor).status_code == 200


def test_counting_takes_nothing_from_the_request_limit(world: World) -> None:
    caller = world.caller(key={"requests_per_minute": 2})
    assert [count(world, caller).status_code for _ in range(35)] == [200] * 35
    assert [world.post(caller).status_code for _ in range(3)] == [200, 200, 429]


def test_counting_has_a_limit_of_its_own(world: World, impatient: ExtraGateway, alice: Caller) -> None:
    url = impatient.base_url + "/v1/messages/count_tokens"
    answers = [httpx.post(url, headers=alice.headers, json=QUESTION, timeout=10) for _ in range(4)]
    assert [answer.status_code for answer in answers[:3]] == [200] * 3
    assert_error(answers[3], 429, "rate_limited_requests")
    assert int(answers[3].headers["retry-after"]) >= 1
    assert httpx.post(url, headers=world.caller().headers, json=QUESTION, timeout=10).status_code == 200
    assert world.post(alice).status_code == 200


def test_an_upstream_that_cannot_count_is_estimated_from_above_and_marked(world: World, alice: Caller) -> None:
    sold = offer(world, alice, [world.base_url])
    [upstream] = Upstream.objects.filter(name=sold.upstreams[0])
    upstream.profile = {**upstream.profile, "count_tokens": False}
    upstream.save()
    answer = world.wait_until(
        lambda: (lambda reply: reply if "x-crossmodel-token-count" in reply.headers else None)(
            count(world, alice, model=sold.model_id)
        ),
        "the profile is known",
    )
    assert answer.headers["x-crossmodel-token-count"] == "estimated"
    assert answer.json()["input_tokens"] > count(world, alice).json()["input_tokens"]


def test_what_cannot_be_counted_is_refused_like_a_message(world: World, alice: Caller) -> None:
    assert count(world, alice, messages=[]).json()["error"]["type"] == "invalid_request_error"
    assert count(world, alice, model="nobody/knows").status_code == 404
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
    assert count(world, alice, messages=[{"role": "user", "content": [document]}]).status_code in (200, 400)


def test_a_revoked_key_cannot_count(world: World, alice: Caller) -> None:
    from accounts.keys import revoke_key
    from billing.admission.feed import publish_pending_changes

    assert count(world, alice).status_code == 200
    revoke_key(alice.key, revoked_by=None)
    publish_pending_changes()
    assert count(world, alice).status_code == 401


def test_somebody_is_home(world: World) -> None:
    for path in ("/", "/api/hello", "/healthz"):
        assert httpx.head(world.base_url + path, timeout=10).status_code == 200
