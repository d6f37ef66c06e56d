"""Idempotency-Key: answered twice, billed once."""

import secrets
import threading
import time
from datetime import timedelta

import httpx
from django.utils import timezone

from accounts.keys import revoke_key
from billing.admission.feed import publish_pending_changes
from gateway.idempotency import delete_expired_answers
from gateway.models import IdempotentAnswer
from tests.gateway.wire import Connection
from tests.support.world import Caller, World, body


def post(world: World, caller: Caller, key: str, text: str = "Hello!", **fields: object) -> httpx.Response:
    headers = {**caller.headers, "idempotency-key": key}
    return httpx.post(world.base_url + "/v1/messages", headers=headers, json=body(text, **fields), timeout=30)


def test_the_same_request_again_gets_the_first_answer_and_one_bill(world: World, alice: Caller) -> None:
    key = secrets.token_hex(8)
    first = post(world, alice, key)
    again = post(world, alice, key)
    assert again.status_code == first.status_code == 200
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert again.headers["request-id"] != first.headers["request-id"]
    world.record(first)
    world.wait_until_quiet()
    assert len(world.records(alice)) == 1


def test_another_body_under_the_same_key_is_refused(world: World, alice: Caller) -> None:
    key = secrets.token_hex(8)
    post(world, alice, key)
    other = post(world, alice, key, "Something else")
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_key_reused")


def test_while_the_first_runs_the_second_waits_its_turn(world: World, alice: Caller) -> None:
    key = secrets.token_hex(8)
    answers: list[httpx.Response] = []
    slow = "Hello! [[sandbox: delay=1500]]"
    first = threading.Thread(target=lambda: answers.append(post(world, alice, key, slow)))
    first.start()
    world.wait_until(lambda: IdempotentAnswer.objects.filter(key_id=alice.key.pk).exists(), "the first runs")
    second = post(world, alice, key, slow)
    first.join()
    assert (second.status_code, second.json()["error"]["code"]) == (409, "idempotency_in_progress")
    assert second.headers["retry-after"] == "1"
    assert post(world, alice, key, slow).content == answers[0].content


def test_a_refused_or_failed_request_gives_the_key_back(world: World) -> None:
    poor = world.caller(credit_usd="0")
    key = secrets.token_hex(8)
    assert post(world, poor, key).status_code == 402
    assert post(world, poor, key).status_code == 402
    rich = world.caller()
    world.sandbox.control("status=500", times=1)
    assert post(world, rich, key).status_code == 502
    assert post(world, rich, key).status_code == 200


def test_a_client_that_leaves_at_any_moment_may_come_again(world: World, alice: Caller) -> None:
    """Whatever became of its first request, the key does not say for a day that it still runs."""
    keys = [secrets.token_hex(8) for _ in range(30)]
    for number, key in enumerate(keys):
        headers = [*alice.headers.items(), ("idempotency-key", key)]
        with Connection(world.base_url) as connection:
            connection.send("POST", "/v1/messages", headers, httpx.Request("POST", "/", json=body()).content)
            time.sleep(number * 0.0005)
            connection.reset()
    world.wait_until_quiet()
    again = [post(world, alice, key) for key in keys]
    codes = {answer.json().get("error", {}).get("code", "served") for answer in again}
    assert codes <= {"served", "idempotency_answer_not_kept"}
    world.wait_until_quiet()
    served = {answer.json()["id"] for answer in again if answer.status_code == 200}
    assert len(served) == sum(answer.status_code == 200 for answer in again)
    assert len(world.records(alice)) <= len(keys)


def test_a_revoked_key_gets_no_stored_answer(world: World, alice: Caller) -> None:
    key = secrets.token_hex(8)
    assert post(world, alice, key).status_code == 200
    revoke_key(alice.key, revoked_by=None)
    publish_pending_changes()
    again = post(world, alice, key)
    assert (again.status_code, again.json()["error"]["code"]) == (401, "key_revoked")


def test_keys_of_two_callers_do_not_meet(world: World, alice: Caller) -> None:
    key = secrets.token_hex(8)
    bob = world.caller()
    first, other = post(world, alice, key), post(world, bob, key)
    assert first.json()["id"] != other.json()["id"]


def test_a_stream_is_not_kept_and_not_served_twice(world: World, alice: Caller) -> None:
    key = secrets.token_hex(8)
    assert post(world, alice, key, stream=True).status_code == 200
    again = world.wait_until(
        lambda: (lambda answer: answer if answer.json()["error"]["code"] != "idempotency_in_progress" else None)(
            post(world, alice, key, stream=True)
        ),
        "the stream is noted",
    )
    assert (again.status_code, again.json()["error"]["code"]) == (409, "idempotency_answer_not_kept")


def test_the_answer_at_rest_cannot_be_read(world: World, alice: Caller) -> None:
    answer = post(world, alice, secrets.token_hex(8), "[[sandbox: say=a very private sentence]]")
    assert b"a very private sentence" in answer.content
    row = IdempotentAnswer.objects.get(key_id=alice.key.pk)
    assert row.sealed_answer is not None
    assert b"private" not in bytes(row.sealed_answer)


def test_a_key_may_be_used_anew_after_its_day(world: World, alice: Caller) -> None:
    key = secrets.token_hex(8)
    first = post(world, alice, key)
    row = IdempotentAnswer.objects.get(key_id=alice.key.pk)
    assert timedelta(hours=23, minutes=59) < row.expires_at - row.created_at <= timedelta(hours=24)
    IdempotentAnswer.objects.filter(pk=row.pk).update(expires_at=timezone.now())
    other = post(world, alice, key, "Something else")
    assert (other.status_code, other.headers.get("idempotent-replayed")) == (200, None)
    assert other.json()["id"] != first.json()["id"]
    assert post(world, alice, key, "Something else").content == other.content


def test_expired_answers_are_forgotten(world: World, alice: Caller) -> None:
    for _ in range(2):
        post(world, alice, secrets.token_hex(8))
    older, newer = IdempotentAnswer.objects.filter(key_id=alice.key.pk).order_by("pk")
    IdempotentAnswer.objects.filter(pk=older.pk).update(expires_at=timezone.now())
    delete_expired_answers()
    assert list(IdempotentAnswer.objects.filter(key_id=alice.key.pk)) == [newer]


def test_a_key_that_is_none_is_refused(world: World, alice: Caller) -> None:
    answer = post(world, alice, "x" * 256)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_idempotency_key")


def test_usage_cost_is_shown_to_those_who_ask(world: World, alice: Caller) -> None:
    headers = {**alice.headers, "x-crossmodel-usage-cost": "true"}
    reply = httpx.post(world.base_url + "/v1/messages", headers=headers, json=body(), timeout=30)
    record = world.record(reply)
    assert reply.json()["usage"]["cost"] == f"{record.cost_nanos / 1e9:.9f}".rstrip("0")
    assert "cost" not in world.post(alice).json()["usage"]
    carol = world.caller(shows_cost_in_usage=True)
    assert "cost" in world.post(carol).json()["usage"]
    stream = httpx.post(world.base_url + "/v1/messages", headers=carol.headers, json=body(stream=True), timeout=30)
    assert '"cost":"0.' in stream.text
