"""The JSON API: who may read, what it says, and the envelope of its errors."""

import logging
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django.fixtures import Settings

from accounts.keys import create_key, revoke_key
from accounts.models import ApiKey
from billing.credit.top_ups import grant_credit
from billing.models import CreditLot
from billing.money import format_usd
from tests.support.people import People
from tests.support.roles import routes
from tests.support.settled_usage import billed_event, failed_event, sell_model, settle


def get(path: str, secret: str, **headers: str) -> Any:
    return Client().get(f"/api/v1/{path}", headers={"x-api-key": secret, **headers})


def test_credits(people: People) -> None:
    grant_credit(
        people.organization,
        amount_nanos=5 * 10**9,
        kind=CreditLot.Kind.PAID,
        reason="r",
        actor="a",
        idempotency_key="k",
    )
    event = billed_event(people.key, sell_model())
    settle([event])
    response = get("credits", people.secret)
    left = format_usd(5 * 10**9 - event.cost_nanos)
    spent = format_usd(event.cost_nanos)
    assert response.json()["data"] == {
        "organization": "alice",
        "currency": "USD",
        "total_credits": "5.00",
        "total_usage": spent,
        "balance": left,
        "credit_limit": "0.00",
        "held": "0.00",
        "unsettled": "0.00",
        "available": left,
        "open_requests": 0,
        "usage": {"today": spent, "month": spent, "total": spent},
    }
    assert response["request-id"].startswith("req_")
    assert response["Cache-Control"] == "private, no-store"


def test_credits_without_redis(people: People, redis_away: None) -> None:
    response = get("credits", people.secret)
    assert response.status_code == 503
    assert response.json()["error"]["type"] == "overloaded_error"
    assert response.json()["error"]["code"] == "admission_unavailable"
    assert response["retry-after"] == "1"


def test_key(people: People) -> None:
    key, secret = create_key(
        people.organization,
        name="Limited",
        created_by=people.alice,
        fields={"daily_budget_nanos": 10**9, "requests_per_minute": 30, "allowed_networks": ["127.0.0.0/8"]},
    )
    version = sell_model()
    mine, other = billed_event(key, version), billed_event(people.key, version)
    settle([mine, other])
    body = get("key", secret).json()["data"]
    spent = format_usd(mine.cost_nanos)
    left = format_usd(10**9 - mine.cost_nanos)
    assert {body[name] for name in ("usage", "usage_daily", "usage_weekly", "usage_monthly")} == {spent}
    assert (body["limit"], body["limit_remaining"], body["limit_reset"]) == ("1.00", left, "daily")
    assert body["budgets"] == {
        "daily": {"limit": "1.00", "in_force": "1.00", "spent": spent, "remaining": left},
        "weekly": {"limit": None, "in_force": None, "spent": spent, "remaining": None},
        "monthly": {"limit": None, "in_force": None, "spent": spent, "remaining": None},
        "only_notifies": False,
        "override": None,
    }
    assert body["limits"] == {
        "requests_per_minute": 30,
        "input_tokens_per_minute": None,
        "output_tokens_per_minute": None,
        "concurrent_requests": None,
    }
    assert (body["label"], body["id"]) == (f"{key.prefix}…{key.last_four}", f"apikey_{key.pk}")
    assert secret not in str(body)


def test_a_receipt(people: People) -> None:
    event = billed_event(people.key, sell_model(), cache_read_tokens=500)
    settle([event])
    body = get(f"generation?id=msg_{event.request_id}", people.secret).json()["data"]
    assert body["cost"] == format_usd(event.cost_nanos)
    assert sum(line["amount_picos"] for line in body["lines"]) == event.cost_nanos * 1000
    assert all(line["count"] * line["price_picos_per_unit"] == line["amount_picos"] for line in body["lines"])
    assert body["attempts"] == [{"outcome": "served", "status": 200, "duration_ms": 2100}]
    assert "sandbox" not in str(body)


def test_a_receipt_of_a_failed_request(people: People) -> None:
    event = failed_event(people.key, sell_model())
    settle([event])
    body = get(f"generation?id={event.request_id}", people.secret).json()["data"]
    assert (body["outcome"], body["error_code"], body["cost"]) == ("failed", "upstream_overloaded", "0.00")


def test_receipts_of_others_are_not_found(people: People) -> None:
    _, charlies = create_key(people.charlies, name="C", created_by=people.charlie)
    event = billed_event(people.key, sell_model())
    settle([event])
    for wanted in (event.request_id, "0" * 32, "x", ""):
        response = get(f"generation?id={wanted}", charlies)
        assert response.status_code == 404
        assert response.json()["error"]["type"] == "invalid_request_error"


def test_x_api_key_wins_over_a_bearer(people: People) -> None:
    assert get("key", people.secret, authorization="Bearer cm-other").status_code == 200
    assert get("key", "cm-other", authorization=f"Bearer {people.secret}").status_code == 401
    assert Client().get("/api/v1/key", headers={"authorization": f"bearer {people.secret}"}).status_code == 200


@pytest.mark.parametrize("path", ["credits", "key", "generation?id=x"])
@pytest.mark.parametrize("secret", ["", "cm-", "cm-AAAAAAAA-" + "A" * 43, "\xff\xfe", "x" * 5000])
def test_wrong_keys_are_refused(people: People, path: str, secret: str) -> None:
    response = get(path, secret)
    assert response.status_code == 401
    body = response.json()
    code = "invalid_api_key" if secret else "missing_api_key"
    assert body["type"] == "error"
    assert (body["error"]["type"], body["error"]["code"]) == ("authentication_error", code)
    assert body["request_id"] == response["request-id"]
    assert response["x-should-retry"] == "false"


def test_dead_keys_are_refused_as_on_the_request_path(people: People) -> None:
    ApiKey.objects.filter(pk=people.key.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    expired = get("credits", people.secret)
    assert (expired.status_code, expired.json()["error"]["code"]) == (401, "key_expired")
    ApiKey.objects.filter(pk=people.key.pk).update(expires_at=None)
    assert get("credits", people.secret).status_code == 200
    revoke_key(people.key, revoked_by=people.alice)
    revoked = get("credits", people.secret)
    assert (revoked.status_code, revoked.json()["error"]["code"]) == (401, "key_revoked")


def test_a_key_answers_only_where_it_may_be_used(people: People, settings: Settings) -> None:
    ApiKey.objects.filter(pk=people.key.pk).update(allowed_networks=["192.0.2.0/24"])
    refused = get("credits", people.secret)
    assert (refused.status_code, refused.json()["error"]["code"]) == (402, "network_not_allowed")
    settings.TRUSTED_PROXIES = ["127.0.0.1/32"]
    headers = {"x-api-key": people.secret, "x-forwarded-for": "192.0.2.7"}
    assert Client().get("/api/v1/credits", headers=headers).status_code == 200
    headers["x-forwarded-for"] = "192.0.2.7, 198.51.100.1"
    assert Client().get("/api/v1/credits", headers=headers).status_code == 402


def test_unknown_paths_and_failures_get_the_envelope_too(
    people: People, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    response = Client().get("/api/v1/nope")
    assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")

    def fail(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("a secret of the inside")

    monkeypatch.setattr("api.account.read_admission_state", fail)
    with caplog.at_level(logging.CRITICAL, logger="django.request"):
        response = Client(raise_request_exception=False).get("/api/v1/credits", headers={"x-api-key": people.secret})
    assert (response.status_code, response.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in response.content.decode()
    assert response["request-id"] == response.json()["request_id"]


def test_only_get(people: People) -> None:
    response = Client().post("/api/v1/credits", headers={"x-api-key": people.secret})
    assert response.status_code == 405
    assert response.json()["error"]["code"] == "method_not_allowed"


@pytest.mark.django_db
def test_the_schema_describes_every_path() -> None:
    response = Client().get("/api/schema/?format=json")
    assert response.status_code == 200
    schema = response.json()
    named = {address for address, _, _ in routes() if address.startswith(("/api/v1/", "/v1/organizations/"))}
    paths = {re.sub(r"<(\w+)>", r"{\1}", address) for address in named}
    assert set(schema["paths"]) == paths | {"/api/v1/estimate"}  # Which the gateway answers.
    assert schema["components"]["schemas"]["Credits"]["properties"]["available"]["type"] == "string"


def test_today_begins_at_midnight_utc(people: People) -> None:
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    event = billed_event(people.key, sell_model(), at=midnight - timedelta(seconds=1))
    settle([event])
    assert get("key", people.secret).json()["data"]["usage_daily"] == "0.00"
