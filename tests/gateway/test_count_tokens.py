"""POST /v1/messages/count_tokens, and the small endpoints that clients call before they ask for anything."""

import httpx

from billing.models import Upstream
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_error
from tests.support.extra_gateway import ExtraGateway
from tests.support.live_stack import MODEL, LiveStack, Tenant

QUESTION = {"model": MODEL, "messages": [{"role": "user", "content": "How many tokens are these?"}]}


def count(stack: LiveStack, tenant: Tenant, **fields: object) -> httpx.Response:
    return httpx.post(
        stack.base_url + "/v1/messages/count_tokens?beta=true",
        headers=tenant.headers,
        json={**QUESTION, **fields},
        timeout=10,
    )


def test_the_upstream_counts_and_nobody_pays(stack: LiveStack, alice: Tenant) -> None:
    answer = count(stack, alice)
    assert answer.status_code == 200
    billed = stack.post(alice, "How many tokens are these?").json()["usage"]
    assert answer.json() == {"input_tokens": billed["input_tokens"]}
    assert "x-crossmodel-token-count" not in answer.headers
    stack.wait_until_quiet()
    assert len(stack.records(alice)) == 1


def test_an_empty_balance_may_count(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0")
    assert count(stack, poor).status_code == 200


def test_counting_takes_nothing_from_the_request_limit(stack: LiveStack) -> None:
    tenant = stack.make_tenant(key={"requests_per_minute": 2})
    assert [count(stack, tenant).status_code for _ in range(35)] == [200] * 35
    assert [stack.post(tenant).status_code for _ in range(3)] == [200, 200, 429]


def test_counting_has_a_limit_of_its_own(stack: LiveStack, impatient: ExtraGateway, alice: Tenant) -> None:
    url = impatient.base_url + "/v1/messages/count_tokens"
    answers = [httpx.post(url, headers=alice.headers, json=QUESTION, timeout=10) for _ in range(4)]
    assert [answer.status_code for answer in answers[:3]] == [200] * 3
    assert_error(answers[3], 429, "rate_limited_requests")
    assert int(answers[3].headers["retry-after"]) >= 1
    assert httpx.post(url, headers=stack.make_tenant().headers, json=QUESTION, timeout=10).status_code == 200
    assert stack.post(alice).status_code == 200


def test_an_upstream_that_cannot_count_is_estimated_from_above_and_marked(stack: LiveStack, alice: Tenant) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url])
    [upstream] = Upstream.objects.filter(name=sold.upstreams[0])
    upstream.profile = {**upstream.profile, "count_tokens": False}
    upstream.save()
    answer = stack.wait_until(
        lambda: (lambda reply: reply if "x-crossmodel-token-count" in reply.headers else None)(
            count(stack, alice, model=sold.model_id)
        ),
        "the profile is known",
    )
    assert answer.headers["x-crossmodel-token-count"] == "estimated"
    assert answer.json()["input_tokens"] > count(stack, alice).json()["input_tokens"]


def test_what_cannot_be_counted_is_refused_like_a_message(stack: LiveStack, alice: Tenant) -> None:
    assert count(stack, alice, messages=[]).json()["error"]["type"] == "invalid_request_error"
    assert count(stack, alice, model="nobody/knows").status_code == 404
    document = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
    assert count(stack, alice, messages=[{"role": "user", "content": [document]}]).status_code in (200, 400)


def test_a_revoked_key_cannot_count(stack: LiveStack, alice: Tenant) -> None:
    from accounts.keys import revoke_key
    from billing.admission.outbox import publish_pending_changes

    assert count(stack, alice).status_code == 200
    revoke_key(alice.key, revoked_by=None)
    publish_pending_changes()
    assert count(stack, alice).status_code == 401


def test_somebody_is_home(stack: LiveStack) -> None:
    for path in ("/", "/api/hello", "/healthz"):
        assert httpx.head(stack.base_url + path, timeout=10).status_code == 200
