"""Refused requests are noted with the reason as it was answered, within bounds, and never of strangers."""

from typing import Any

import pytest
from django.test import Client

from accounts.models import Member, Role, User
from billing.models import RefusedRequest
from billing.request_id import parse_request_id
from gateway import refusal_log
from gateway.authentication import KeyIdentity
from gateway.database import DatabaseThreads, DatabaseUnavailableError
from gateway.errors import GatewayError
from gateway.protocol.messages.attribution import Attribution
from gateway.refusal_log import RefusalLog
from tests.support.live_stack import HTTP, LiveStack, Tenant

SEEN = ("status", "error_code", "message", "endpoint", "model_id")


def noted(stack: LiveStack, tenant: Tenant, count: int) -> list[RefusedRequest]:
    rows = RefusedRequest.objects.filter(organization_id=tenant.organization.pk)
    stack.wait_until(lambda: rows.count() >= count, f"{count} refusals are written")
    return list(rows.order_by("request_id"))


def body(**fields: Any) -> dict[str, Any]:
    return {
        "model": "anthropic/claude-sonnet-4.6",
        "max_tokens": 10,
        "messages": [{"role": "user", "content": "Hi"}],
        **fields,
    }


@pytest.mark.keeps_redis
def test_each_refusal_is_noted_as_it_was_answered(stack: LiveStack) -> None:
    poor = stack.make_tenant(credit_usd="0")
    answers = [
        HTTP.post(stack.base_url + path, json=sent, headers=poor.headers)
        for path, sent in (
            ("/v1/messages", body()),
            ("/v1/messages", body(max_tokens=-1)),
            ("/v1/messages", body(model="none/such\x00")),
            ("/v1/messages/count_tokens", body(model="none/such")),
        )
    ]
    assert [answer.status_code for answer in answers] == [402, 400, 404, 404]
    rows = {row.request_id: row for row in noted(stack, poor, 4)}
    for answer, endpoint in zip(answers, ["messages"] * 3 + ["count_tokens"], strict=True):
        row = rows[parse_request_id(answer.headers["request-id"])]  # type: ignore[index]
        error = answer.json()["error"]
        assert (row.status, row.error_code, row.endpoint) == (answer.status_code, error["code"], endpoint)
        assert row.message == error["message"].replace("\x00", "")


@pytest.mark.keeps_redis
def test_the_console_and_the_api_say_why(stack: LiveStack) -> None:
    poor, other = stack.make_tenant(credit_usd="0"), stack.make_tenant(credit_usd="0")
    answer = HTTP.post(stack.base_url + "/v1/messages", json=body(), headers=poor.headers)
    [row] = noted(stack, poor, 1)
    request_id = answer.headers["request-id"]
    person = User.objects.create_user(email=f"owner@{poor.organization.slug}.example", password="x" * 12)
    Member.objects.create(organization=poor.organization, user=person, role=Role.OWNER)
    client = Client()
    client.force_login(person)
    console = f"/console/{poor.organization.slug}/requests/"
    assert "insufficient_balance" in client.get(console + "?outcome=refused").content.decode()
    page = client.get(f"/console/{poor.organization.slug}/usage/{request_id}/").content.decode()
    assert "no max_tokens would fit" in page
    assert "insufficient_balance" not in client.get(console + "?outcome=billed").content.decode()
    generation = f"{stack.base_url}/api/v1/generation?id={request_id}"
    shown = HTTP.get(generation, headers=poor.headers).json()["data"]
    assert (shown["outcome"], shown["error_code"], shown["cost"]) == ("refused", "insufficient_balance", "0.00")
    assert shown["error_message"] == answer.json()["error"]["message"] == row.message
    assert HTTP.get(generation, headers=other.headers).status_code == 404


@pytest.mark.keeps_redis
def test_a_stranger_without_a_key_leaves_nothing(stack: LiveStack, alice: Tenant) -> None:
    before = RefusedRequest.objects.count()
    assert HTTP.post(stack.base_url + "/v1/messages", json=body()).status_code == 401
    assert HTTP.post(stack.base_url + "/v1/messages", json=body(), headers={"x-api-key": "cm-x"}).status_code == 401
    HTTP.post(stack.base_url + "/v1/messages", json=body(max_tokens=-1), headers=alice.headers)
    noted(stack, alice, 1)  # What was noted before it would be written by now.
    assert RefusedRequest.objects.exclude(organization_id=alice.organization.pk).count() <= before


def identity(key_id: int, organization_id: int = 1) -> KeyIdentity:
    return KeyIdentity(
        key_id=key_id,
        organization_id=organization_id,
        config_version=1,
        allowed_models=frozenset(),
        allowed_networks=(),
    )


class TestBounds:
    def note(self, log: RefusalLog, number: int, *, key_id: int = 1, code: str = "insufficient_balance") -> None:
        error = GatewayError(402, code, "No.")
        log.note(
            identity(key_id),
            error,
            request_id=f"{number:032x}",
            endpoint="messages",
            model="m",
            attribution=Attribution("", "", ""),
        )

    def test_a_loop_of_one_key_is_counted_and_not_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stop_the_clock(monkeypatch)
        log = RefusalLog(DatabaseThreads())
        for number in range(1_000):
            self.note(log, number)
        kept = list(log._waiting.values())
        assert len(kept) == refusal_log.KEPT_OF_KEY_PER_MINUTE
        assert sum(1 + refusal.repeats for refusal in kept) == 1_000

    def test_a_rare_reason_is_not_hidden_behind_a_frequent_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stop_the_clock(monkeypatch)
        log = RefusalLog(DatabaseThreads())
        for number in range(200):
            self.note(log, number)
        self.note(log, 200, code="model_not_allowed")
        assert {refusal.error_code for refusal in log._waiting.values()} == {
            "insufficient_balance",
            "model_not_allowed",
        }

    def test_many_keys_of_one_organization_are_bounded_together(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stop_the_clock(monkeypatch)
        log = RefusalLog(DatabaseThreads())
        for number in range(2_000):
            self.note(log, number, key_id=number % 100)
        assert len(log._waiting) <= refusal_log.KEPT_OF_ORGANIZATION_PER_MINUTE + 100

    async def test_what_postgres_does_not_take_is_kept_within_bounds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(refusal_log, "MAX_WAITING", 3)

        class Away(DatabaseThreads):
            async def run(self, *args: Any, **kwargs: Any) -> Any:
                raise DatabaseUnavailableError("away")

        log = RefusalLog(Away())
        for number in range(5):
            self.note(log, number, key_id=number)
        await log.write()
        assert log.waiting_count == 3

    def stop_the_clock(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let all of a test happen within one minute."""
        from datetime import UTC, datetime

        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> "Clock":
                return cls(2026, 1, 1, 12, 0, 30, tzinfo=UTC)

        monkeypatch.setattr(refusal_log, "datetime", Clock)
