"""The log of a running gateway: each request by its id, why it was refused, and nothing that must not be there."""

import json
from typing import Any

import httpx
import pytest

from billing.admission.errors import AdmissionUnavailableError
from gateway.database import DatabaseUnavailableError
from gateway.errors import unavailable
from gateway.metering.line_budget import LineBudget
from gateway.metering.request_log import shown_path, why_refused
from tests.support.extra_gateway import ExtraGateway
from tests.support.live_stack import HTTP, Tenant

CANARY = "xyzzy-plugh-4711"
MODEL = "anthropic/claude-sonnet-4.6"


def lines_of(gateway: ExtraGateway, answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the lines of one request. The last of them is written a moment after the answer."""
    request_id = answer.headers["request-id"].removeprefix("req_")
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [json.loads(line) for line in gateway.log().splitlines() if request_id in line]
        return any("status" in line for line in found)

    gateway.stack.wait_until(is_there, "the request is in the log")
    assert all(line["request_id"] == request_id for line in found)
    return found


def ask(gateway: ExtraGateway, tenant: Tenant, text: str = "Hi", **fields: Any) -> httpx.Response:
    body = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": text}], **fields}
    return HTTP.post(gateway.base_url + "/v1/messages", json=body, headers=tenant.headers)


def test_a_line_tells_what_was_billed_and_what_was_refused_and_why(impatient: ExtraGateway, alice: Tenant) -> None:
    [line] = lines_of(impatient, ask(impatient, alice, "[[sandbox: tokens=7]] Hi"))
    assert (line["status"], line["model"], line["output_tokens"]) == (200, MODEL, 7)
    assert line["organization"] == alice.organization.pk
    assert float(line["cost_usd"]) > 0
    poor = impatient.stack.make_tenant(credit_usd="0.0001")
    refused = ask(impatient, poor, max_tokens=1000)
    [line] = lines_of(impatient, refused)
    assert (line["status"], line["code"]) == (402, "insufficient_balance")
    assert line["why"] == refused.json()["error"]["message"]
    assert "available balance is $0.0001" in line["why"]


def test_a_line_tells_which_part_of_ours_failed_and_how() -> None:
    """Not to the client: it could only try again. Whoever is paged reads it."""
    failures = {
        AdmissionUnavailableError("Redis did not answer in time."): "Redis did not answer in time.",
        DatabaseUnavailableError("server closed\n\x1b[2J" + "x" * 1000): "server closed\\n\\x1b[2J" + "x" * 182,
        ValueError(CANARY): "",
    }
    for failure, why in failures.items():
        error = unavailable("Try again.")
        error.__cause__ = failure
        assert why_refused(error) == why


def test_no_line_holds_a_prompt_a_reply_or_a_key(impatient: ExtraGateway, alice: Tenant) -> None:
    answers = [
        ask(impatient, alice, CANARY),
        ask(impatient, alice, f"[[sandbox: status=400; message={CANARY}]]"),
        ask(impatient, alice, f"[[sandbox: status=500; message={CANARY}]]"),
        ask(impatient, alice, f"[[sandbox: status=403]] {CANARY}"),
        ask(impatient, alice, f"[[sandbox: tokens=30; error=mid; message={CANARY}]]", stream=True),
        ask(impatient, alice, messages=[{"role": CANARY, "content": CANARY}]),
        ask(impatient, alice, model=CANARY),
        HTTP.get(f"{impatient.base_url}/v1/{alice.secret}", headers=alice.headers),
        HTTP.post(impatient.base_url + "/v1/messages", json={}, headers={"x-api-key": alice.secret[:-1] + "_"}),
    ]
    assert len({answer.status_code for answer in answers}) > 3
    assert all(lines_of(impatient, answer) for answer in answers)
    log = impatient.log()
    assert CANARY not in log
    assert alice.secret[-43:] not in log


def test_whoever_is_refused_in_a_loop_does_not_fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("gateway.metering.line_budget.time.monotonic", lambda: now)
    budget = LineBudget(3, 5)
    assert [budget.allows(7) for _ in range(5)] == [True, True, True, False, False]
    assert [budget.allows(8) for _ in range(4)] == [True, True, True, False], "Others have their own."
    assert [budget.allows(0) for _ in range(7)].count(True) == 5
    now += 60
    assert budget.allows(7)
    assert budget.take_left_out(7) == 2
    assert budget.take_left_out(7) == 0


def test_a_path_shows_no_secret_and_no_other_line() -> None:
    assert shown_path("/v1/models/claude-sonnet-4-5-20250929") == "/v1/models/claude-sonnet-4-5-20250929"
    assert shown_path("/v1/cm-abcdefgh-" + "s" * 43) == "/v1/[...]"
    assert shown_path("/v1/\nfoo").isprintable()
    assert len(shown_path("/v1/" + "a b" * 10_000)) < 300
