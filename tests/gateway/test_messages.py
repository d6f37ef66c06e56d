"""POST /v1/messages, whole and streamed: the reply, the record and the debit."""

import json
from datetime import UTC, datetime

import httpx

from billing.credit.lots import spendable_credit
from billing.models import LedgerEntry, UsageRecord
from billing.money import parse_usd
from tests.support.live_stack import MODEL, LiveStack, Tenant, body


def test_a_reply_is_billed_to_the_token(stack: LiveStack, alice: Tenant) -> None:
    response = stack.post(alice, "Hello!")
    assert response.status_code == 200
    reply = response.json()
    assert reply["type"] == "message"
    assert reply["role"] == "assistant"
    assert reply["model"] == MODEL
    assert reply["id"] == "msg_" + response.headers["request-id"].removeprefix("req_")
    assert reply["content"][0]["type"] == "text"
    usage = reply["usage"]
    record = stack.record(response)
    assert record.usage_source == UsageRecord.Source.PROVIDER
    assert (record.input_tokens, record.output_tokens) == (usage["input_tokens"], usage["output_tokens"])
    assert record.cost_nanos == usage["input_tokens"] * 3_000 + usage["output_tokens"] * 15_000
    debit = LedgerEntry.objects.get(
        transaction_id=record.ledger_transaction_id, account__organization_id=alice.organization.pk
    )
    assert debit.amount_nanos == -record.cost_nanos
    [(credit, _)] = spendable_credit([alice.organization.pk]).values()
    assert credit == parse_usd("10") - record.cost_nanos


def test_a_stream_is_billed_like_the_whole(stack: LiveStack, alice: Tenant) -> None:
    with httpx.stream(
        "POST", stack.base_url + "/v1/messages", headers=alice.headers, json=body("Hello!", stream=True)
    ) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        text = "".join(response.iter_text())
    events = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert events[0] == "message_start"
    assert events[-2:] == ["message_delta", "message_stop"]
    deltas = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    [final] = [delta for delta in deltas if delta["type"] == "message_delta"]
    record = stack.record(response)
    assert record.is_streamed
    assert record.output_tokens == final["usage"]["output_tokens"]
    assert record.input_tokens == final["usage"]["input_tokens"]


def test_the_record_says_when_and_through_what(stack: LiveStack, alice: Tenant) -> None:
    before = datetime.now(UTC)
    record = stack.record(stack.post(alice))
    assert record.upstream == "sandbox"
    assert [attempt["status"] for attempt in record.attempts] == [200]
    assert record.upstream_cost_nanos == record.cost_nanos
    assert abs((record.admitted_at - before).total_seconds()) < 5
