"""Counting tokens calls upstreams as a message does: breakers, rotation of credentials, doubts and refusals."""

import json
from collections.abc import Iterator

import httpx
import pytest
from pytest_django.plugin import DjangoDbBlocker

from billing.models import Upstream
from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.gateway.scripted_upstream import MESSAGE, ScriptedUpstream, scripted_upstream, whole
from tests.support.live_stack import HTTP, LiveStack, Tenant, standing_stack, visit

BREAKER_FAILURES = 3
KEYS_VARIABLE = "UPSTREAM_TEST_KEYS"
ESTIMATED = "x-crossmodel-token-count"
COUNTED = whole(b'{"input_tokens":7}')


@pytest.fixture(scope="module")
def _counting_stack(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[LiveStack]:
    folder = tmp_path_factory.mktemp("counting")
    settings = {"CROSSMODEL_BREAKER_FAILURES": str(BREAKER_FAILURES), KEYS_VARIABLE: "provider-key-1,provider-key-2"}
    with standing_stack(folder, "counting", **settings) as stack:
        yield stack


@pytest.fixture
def counting(_counting_stack: LiveStack, django_db_blocker: DjangoDbBlocker) -> Iterator[LiveStack]:
    with visit(_counting_stack, django_db_blocker) as stack:
        yield stack


@pytest.fixture
def tenant(counting: LiveStack) -> Tenant:
    return counting.make_tenant()


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        yield upstream


def sell(counting: LiveStack, tenant: Tenant, *urls: str) -> SoldModel:
    return sell_catalog_model(counting, tenant, [counting.base_url], routes=len(urls), upstream_urls=urls)


def count(counting: LiveStack, tenant: Tenant, sold: SoldModel) -> httpx.Response:
    question = {"model": sold.model_id, "messages": [{"role": "user", "content": "How many?"}]}
    return HTTP.post(counting.base_url + "/v1/messages/count_tokens", headers=tenant.headers, json=question)


def error(status: str, kind: str, message: str) -> bytes:
    body = {"type": "error", "error": {"type": kind, "message": message}}
    return whole(json.dumps(body).encode(), status=status)


def test_an_upstream_that_fails_counts_is_asked_for_no_more_and_serves_messages(
    counting: LiveStack, tenant: Tenant, upstream: ScriptedUpstream
) -> None:
    sold = sell(counting, tenant, upstream.url)
    upstream.script = error("529 Overloaded", "overloaded_error", "Overloaded")
    answers = [count(counting, tenant, sold) for _ in range(BREAKER_FAILURES + 3)]
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert [answer.headers.get(ESTIMATED) for answer in answers] == ["estimated"] * len(answers)
    assert len(upstream.requests) == BREAKER_FAILURES
    upstream.script = whole(json.dumps({**MESSAGE, "content": [{"type": "text", "text": "Hi"}]}).encode())
    assert counting.post(tenant, model=sold.model_id).status_code == 200, "what is paid for does not hang on it"
    assert count(counting, tenant, sold).headers.get(ESTIMATED) == "estimated", "nor the other way round"
    upstream.script = COUNTED
    other = count(counting, counting.make_tenant(), sold)
    assert other.json() == {"input_tokens": 7}, "another organization's breaker is its own"


def test_the_next_upstream_counts_when_the_first_fails(
    counting: LiveStack, tenant: Tenant, upstream: ScriptedUpstream
) -> None:
    with scripted_upstream() as second:
        sold = sell(counting, tenant, upstream.url, second.url)
        upstream.script = whole(b"no JSON at all")
        second.script = COUNTED
        counted = count(counting, tenant, sold)
    assert counted.json() == {"input_tokens": 7}
    assert ESTIMATED not in counted.headers
    [asked] = second.requests
    assert b"x-crossmodel-request-id: " + counted.headers["request-id"].removeprefix("req_").encode() in asked
    assert (len(upstream.requests), len(second.requests)) == (1, 1)


def test_a_credential_that_is_refused_is_doubted_and_the_next_one_is_tried(
    counting: LiveStack, tenant: Tenant, upstream: ScriptedUpstream
) -> None:
    upstream.script = error("401 Unauthorized", "authentication_error", "invalid x-api-key")
    sold = sell(counting, tenant, upstream.url)
    Upstream.objects.filter(name=sold.upstreams[0]).update(credential_env=KEYS_VARIABLE)
    Upstream.objects.get(name=sold.upstreams[0]).save()

    def is_closed() -> bool:
        assert count(counting, tenant, sold).headers[ESTIMATED] == "estimated"
        before = len(upstream.requests)
        assert count(counting, tenant, sold).headers[ESTIMATED] == "estimated"
        return len(upstream.requests) == before

    counting.wait_until(is_closed, "both credentials are suspended")
    asked = [request for request in upstream.requests if b"x-api-key: provider-key" in request]
    assert {request.split(b" ", 2)[1] for request in asked} == {b"/v1/messages/count_tokens", b"/v1/models"}


def test_what_an_upstream_refuses_to_count_is_refused_and_asked_nowhere_else(
    counting: LiveStack, tenant: Tenant, upstream: ScriptedUpstream
) -> None:
    with scripted_upstream() as second:
        sold = sell(counting, tenant, upstream.url, second.url)
        upstream.script = error("400 Bad Request", "invalid_request_error", "messages: too odd")
        second.script = COUNTED
        for _ in range(BREAKER_FAILURES + 1):
            refused = count(counting, tenant, sold)
            assert (refused.status_code, refused.json()["error"]["message"]) == (400, "messages: too odd")
    assert (len(upstream.requests), len(second.requests)) == (BREAKER_FAILURES + 1, 0)
