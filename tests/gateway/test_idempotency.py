"""Idempotency-Key: answered twice, billed once."""

import secrets
import threading
import time
from datetime import timedelta

import httpx
from django.utils import timezone

from accounts.keys import revoke_key
from billing.admission.outbox import publish_pending_changes
from gateway.idempotency import delete_expired_answers
from gateway.models import IdempotentAnswer
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.scripted_upstream import scripted_upstream, whole
from tests.gateway.test_model_faults import message_with_input, nested
from tests.gateway.wire import Connection
from tests.support.extra_gateway import ExtraGateway
from tests.support.live_stack import LiveStack, Tenant, body


def post(stack: LiveStack, tenant: Tenant, key: str, text: str = "Hello!", **fields: object) -> httpx.Response:
    headers = {**tenant.headers, "idempotency-key": key}
    return httpx.post(stack.base_url + "/v1/messages", headers=headers, json=body(text, **fields), timeout=30)


def test_the_same_request_again_gets_the_first_answer_and_one_bill(stack: LiveStack, alice: Tenant) -> None:
    key = secrets.token_hex(8)
    first = post(stack, alice, key)
    again = post(stack, alice, key)
    assert again.status_code == first.status_code == 200
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["request-id"] != first.headers["request-id"]
    stack.record(first)
    stack.wait_until_quiet()
    assert len(stack.records(alice)) == 1


def test_another_body_under_the_same_key_is_refused(stack: LiveStack, alice: Tenant) -> None:
    key = secrets.token_hex(8)
    post(stack, alice, key)
    other = post(stack, alice, key, "Something else")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


def test_while_the_first_runs_the_second_waits_its_turn(stack: LiveStack, alice: Tenant) -> None:
    key = secrets.token_hex(8)
    answers: list[httpx.Response] = []
    slow = "Hello! [[sandbox: delay=1500]]"
    first = threading.Thread(target=lambda: answers.append(post(stack, alice, key, slow)))
    first.start()
    stack.wait_until(lambda: IdempotentAnswer.objects.filter(key_id=alice.key.pk).exists(), "the first runs")
    second = post(stack, alice, key, slow)
    first.join()
    assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_in_progress")
    assert second.headers["retry-after"] == "1"
    assert post(stack, alice, key, slow).content == answers[0].content


def test_a_refused_or_failed_request_gives_the_key_back(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0")
    key = secrets.token_hex(8)
    assert post(stack, poor, key).status_code == 402
    assert post(stack, poor, key).status_code == 402
    rich = stack.make_tenant()
    stack.sandbox.control("status=500", times=1)
    assert post(stack, rich, key).status_code == 502
    assert post(stack, rich, key).status_code == 200


def test_a_reply_that_is_billed_and_cannot_be_delivered_is_not_bought_again(stack: LiveStack, alice: Tenant) -> None:
    with scripted_upstream() as upstream:
        sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
        upstream.script = whole(message_with_input(nested(240)))
        key = secrets.token_hex(8)
        first = post(stack, alice, key, model=sold.model_id)
        assert (first.status_code, first.json()["error"]["code"]) == (502, "reply_unusable")
        again = post(stack, alice, key, model=sold.model_id)
        assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_answer_not_kept")
        assert again.headers["x-should-retry"] == "false"
        assert len(upstream.requests) == 1
    stack.wait_until_quiet()
    assert len(stack.records(alice)) == 1


def test_a_client_that_leaves_at_any_moment_may_come_again(stack: LiveStack, alice: Tenant) -> None:
    """Whatever became of its first request, the key does not say for a day that it still runs."""
    keys = [secrets.token_hex(8) for _ in range(30)]
    for number, key in enumerate(keys):
        headers = [*alice.headers.items(), ("idempotency-key", key)]
        with Connection(stack.base_url) as connection:
            connection.send("POST", "/v1/messages", headers, httpx.Request("POST", "/", json=body()).content)
            time.sleep(number * 0.0005)
            connection.reset()
    stack.wait_until_quiet()
    again = [post(stack, alice, key) for key in keys]
    codes = {answer.json().get("error", {}).get("code", "served") for answer in again}
    assert codes <= {"served", "idempotency_answer_not_kept"}
    stack.wait_until_quiet()
    served = {answer.json()["id"] for answer in again if answer.status_code == 200}
    assert len(served) == sum(answer.status_code == 200 for answer in again)
    assert len(stack.records(alice)) <= len(keys)


def test_a_revoked_key_gets_no_stored_answer(stack: LiveStack, alice: Tenant) -> None:
    key = secrets.token_hex(8)
    assert post(stack, alice, key).status_code == 200
    revoke_key(alice.key, revoked_by=None)
    publish_pending_changes()
    again = post(stack, alice, key)
    assert (again.status_code, again.json()["error"]["code"]) == (401, "key_revoked")


def test_keys_of_two_tenants_do_not_meet(stack: LiveStack, alice: Tenant) -> None:
    key = secrets.token_hex(8)
    bob = stack.make_tenant()
    first, other = post(stack, alice, key), post(stack, bob, key)
    assert first.json()["id"] != other.json()["id"]


def test_a_stream_is_not_kept_and_not_served_twice(stack: LiveStack, alice: Tenant) -> None:
    key = secrets.token_hex(8)
    assert post(stack, alice, key, stream=True).status_code == 200
    again = stack.wait_until(
        lambda: (lambda answer: answer if answer.json()["error"]["code"] != "idempotency_in_progress" else None)(
            post(stack, alice, key, stream=True)
        ),
        "the stream is noted",
    )
    assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_answer_not_kept")


def test_a_stream_that_nothing_was_billed_for_gives_the_key_back(
    stack: LiveStack, impatient: ExtraGateway, alice: Tenant
) -> None:
    """Its client got a ping, so that the answer had begun, and then no upstream answered."""
    headers = {**alice.headers, "idempotency-key": secrets.token_hex(8)}
    stack.sandbox.control("hang=before_headers", times=1)

    def ask() -> httpx.Response:
        return httpx.post(impatient.base_url + "/v1/messages", headers=headers, json=body(stream=True), timeout=30)

    first = ask()
    assert (first.status_code, "upstream_timeout" in first.text) == (200, True)
    assert stack.wait_until(
        lambda: (lambda answer: answer if answer.status_code == 200 else None)(ask()), "the key is free"
    ).text.endswith('data: {"type":"message_stop"}\n\n')
    stack.wait_until_quiet()
    assert len(stack.records(alice)) == 1


def test_the_answer_at_rest_cannot_be_read(stack: LiveStack, alice: Tenant) -> None:
    answer = post(stack, alice, secrets.token_hex(8), "[[sandbox: say=a very private sentence]]")
    assert b"a very private sentence" in answer.content
    row = IdempotentAnswer.objects.get(key_id=alice.key.pk)
    assert row.sealed_answer is not None
    assert b"private" not in bytes(row.sealed_answer)


def test_a_key_may_be_used_anew_after_its_day(stack: LiveStack, alice: Tenant) -> None:
    key = secrets.token_hex(8)
    first = post(stack, alice, key)
    row = IdempotentAnswer.objects.get(key_id=alice.key.pk)
    assert timedelta(hours=23, minutes=59) < row.expires_at - row.created_at <= timedelta(hours=24)
    IdempotentAnswer.objects.filter(pk=row.pk).update(expires_at=timezone.now())
    other = post(stack, alice, key, "Something else")
    assert (other.status_code, other.headers.get("idempotent-replayed")) == (200, None)
    assert other.json()["id"] != first.json()["id"]
    assert post(stack, alice, key, "Something else").content == other.content


def test_expired_answers_are_forgotten(stack: LiveStack, alice: Tenant) -> None:
    for _ in range(2):
        post(stack, alice, secrets.token_hex(8))
    older, newer = IdempotentAnswer.objects.filter(key_id=alice.key.pk).order_by("pk")
    IdempotentAnswer.objects.filter(pk=older.pk).update(expires_at=timezone.now())
    delete_expired_answers()
    assert list(IdempotentAnswer.objects.filter(key_id=alice.key.pk)) == [newer]


def test_a_key_that_is_none_is_refused(stack: LiveStack, alice: Tenant) -> None:
    answer = post(stack, alice, "x" * 256)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_idempotency_key")


def test_usage_cost_is_shown_to_those_who_ask(stack: LiveStack, alice: Tenant) -> None:
    headers = {**alice.headers, "x-crossmodel-usage-cost": "true"}
    reply = httpx.post(stack.base_url + "/v1/messages", headers=headers, json=body(), timeout=30)
    record = stack.record(reply)
    assert reply.json()["usage"]["cost"] == f"{record.cost_nanos / 1e9:.9f}".rstrip("0")
    assert "cost" not in stack.post(alice).json()["usage"]
    carol = stack.make_tenant(shows_cost_in_usage=True)
    assert "cost" in stack.post(carol).json()["usage"]
    stream = httpx.post(stack.base_url + "/v1/messages", headers=carol.headers, json=body(stream=True), timeout=30)
    assert '"cost":"0.' in stream.text
