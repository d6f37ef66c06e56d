"""End user, tag and session of a request: recorded with it, on its receipt, and never sent to an upstream."""

import json

import pytest
from django.test import Client

from billing.models import RefusedRequest, RequestDetail
from tests.support.live_stack import HTTP, LiveStack, Tenant, body, request_id_of

SESSION = "1f0e7c1e-65a4-4d0c-8d7e-000000000002"
USER = {"user_id": json.dumps({"device_id": "d" * 64, "account_uuid": "", "session_id": SESSION})}
LABELS = {"end_user": "d" * 64, "tag": "search-team", "session": "s-1"}


@pytest.mark.keeps_redis
def test_a_request_is_counted_for_whom_it_names(stack: LiveStack, alice: Tenant) -> None:
    headers = {**alice.headers, "x-crossmodel-tag": "search-team", "x-crossmodel-session": "s-1"}
    headers["x-claude-code-session-id"] = SESSION
    sent = body("[[sandbox: echo_headers]]", metadata=USER)
    answer = HTTP.post(stack.base_url + "/v1/messages", headers=headers, json=sent)
    reached = json.loads(answer.json()["content"][0]["text"])
    assert reached["content-type"] == "application/json"
    assert not {"x-crossmodel-tag", "x-crossmodel-session", "x-claude-code-session-id"} & set(reached)
    stack.record(answer)
    assert RequestDetail.objects.filter(pk=request_id_of(answer)).values(*LABELS).get() == LABELS
    receipt = (
        Client().get(f"/api/v1/generation?id={answer.headers['request-id']}", headers=alice.headers).json()["data"]
    )
    assert {name: receipt[name] for name in LABELS} == LABELS
    plain = stack.post(alice)
    stack.record(plain)
    receipt = Client().get(f"/api/v1/generation?id={plain.headers['request-id']}", headers=alice.headers).json()["data"]
    assert {name: receipt[name] for name in LABELS} == dict.fromkeys(LABELS)


@pytest.mark.keeps_redis
def test_a_refusal_is_too(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0")
    headers = {**poor.headers, "x-crossmodel-tag": "search-team"}
    answer = HTTP.post(stack.base_url + "/v1/messages", headers=headers, json=body(metadata=USER))
    assert answer.status_code == 402
    rows = RefusedRequest.objects.filter(pk=request_id_of(answer))
    row = stack.wait_until(rows.first, "the refusal is written")
    assert (row.end_user, row.tag, row.session) == ("d" * 64, "search-team", SESSION)
