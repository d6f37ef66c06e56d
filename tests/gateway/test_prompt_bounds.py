"""What a provider may add to a prompt is held for: a small balance is never overdrawn by it; and what cannot be, is not
billed.
"""

import re
from typing import Any

import httpx
import pytest

from billing.models import UsageRecord
from billing.money import parse_usd
from tests.gateway.catalog_factory import SoldModel, sell_catalog_model
from tests.gateway.checks import (
    assert_error,
    assert_nothing_is_held,
    attempts_of,
    wait_for_record,
    wait_until_released,
)
from tests.gateway.wire import read_stream
from tests.support.live_stack import HTTP, LiveStack, Tenant

EITHER_WAY = pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
CONTEXT_TOKENS = 200_000  # Of a model that a test sells, for 3 USD a million input and 15 USD a million output tokens.
CAPABILITIES = ("tools", "thinking", "images", "documents", "web_search", "web_fetch")
WEB_SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
WEB_FETCH = {"type": "web_fetch_20250910", "name": "web_fetch", "max_uses": 2}
DOCUMENT = {"type": "document", "source": {"type": "url", "url": "https://example.org/a.pdf"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
HELD_FOR = re.compile(r"so the hold covers (\d+)")


def sell(stack: LiveStack, tenant: Tenant, **fields: Any) -> SoldModel:
    fields = {"capabilities": CAPABILITIES, "web_search": 10_000_000_000, **fields}
    return sell_catalog_model(stack, tenant, [stack.base_url], **fields)


def ask(
    stack: LiveStack, tenant: Tenant, sold: SoldModel, *blocks: Any, text: str = "Read it.", **fields: Any
) -> httpx.Response:
    content = [*blocks, {"type": "text", "text": text}]
    fields = {"model": sold.model_id, "max_tokens": 100, **fields}
    return HTTP.post(
        stack.base_url + "/v1/messages",
        headers=tenant.headers,
        json={**fields, "messages": [{"role": "user", "content": content}]},
    )


GROWING: list[tuple[list[Any], dict[str, Any]]] = [
    ([DOCUMENT] * 100, {}),
    ([PDF], {}),
    ([{"type": "tool_result", "tool_use_id": "t", "content": [DOCUMENT]}], {}),
    ([{"type": "novel_of_next_year", "source": {"type": "url", "url": "https://example.org"}}], {}),
    ([], {"tools": [WEB_SEARCH]}),
    ([], {"tools": [WEB_FETCH]}),
    ([{"type": "tool_addition", "tool": {"type": "tool_definition", "definition": WEB_SEARCH}}], {}),
]


@pytest.mark.parametrize(("blocks", "fields"), GROWING)
def test_a_prompt_that_may_grow_is_held_for_up_to_the_context_window(
    stack: LiveStack, alice: Tenant, blocks: list[Any], fields: dict[str, Any]
) -> None:
    sold = sell(stack, alice)
    poor = stack.make_tenant(credit_usd="0.6")
    message = assert_error(ask(stack, poor, sold, *blocks, **fields), 402, "insufficient_balance")
    assert HELD_FOR.findall(message) == [str(CONTEXT_TOKENS)]
    assert "no max_tokens would fit" in message
    assert_nothing_is_held(stack, poor)
    # With enough for it, whatever the provider makes of it is covered.
    able = stack.make_tenant(credit_usd="0.65")
    response = ask(stack, able, sold, *blocks, text=f"[[sandbox: input_tokens={CONTEXT_TOKENS}; tokens=100]]", **fields)
    assert response.status_code == 200
    record = wait_for_record(stack, able)
    assert (record.usage_source, record.input_tokens, record.output_tokens) == ("provider", CONTEXT_TOKENS, 100)
    assert record.cost_nanos <= record.hold_nanos <= parse_usd("0.65")
    assert wait_until_released(stack, able).credit_nanos == parse_usd("0.65") - record.cost_nanos >= 0


def test_the_catalog_may_state_a_bound_for_each_kind(stack: LiveStack, alice: Tenant) -> None:
    bounds = {"document": 1_000, "web_search": 2_000, "web_fetch": 50_000}
    sold = sell(stack, alice, expansion_tokens=bounds)
    poor = stack.make_tenant(credit_usd="0.00001")
    fetch = {**WEB_FETCH, "max_content_tokens": 500}
    for blocks, tools, added in (
        ([DOCUMENT, PDF], [], 2_000),
        ([], [WEB_SEARCH], 6_000),
        ([], [WEB_FETCH], 100_000),
        ([], [fetch], 1_000),
        ([DOCUMENT], [WEB_SEARCH, fetch], 8_000),
        ([], [{**WEB_FETCH, "max_uses": None}], CONTEXT_TOKENS),
    ):
        message = assert_error(ask(stack, poor, sold, *blocks, tools=tools), 402, "insufficient_balance")
        [held] = map(int, HELD_FOR.findall(message))
        written = held if held == CONTEXT_TOKENS else held - added
        assert 0 < written < 4_000 or held == CONTEXT_TOKENS
    # A provider that goes beyond the bound is billed up to it, and an operator is told.
    response = ask(stack, alice, sold, DOCUMENT, text="[[sandbox: input_tokens=90000; tokens=100]]")
    assert response.status_code == 200
    record = wait_for_record(stack, alice)
    assert record.usage_source == UsageRecord.Source.BOUNDED
    assert record.cost_nanos <= record.hold_nanos


def test_plain_documents_and_images_by_address_are_held_for_as_before(stack: LiveStack, alice: Tenant) -> None:
    sold = sell(stack, alice)
    poor = stack.make_tenant(credit_usd="0.05")
    text = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Short."}}
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    assert ask(stack, poor, sold, text, image).status_code == 200
    assert wait_for_record(stack, poor).hold_nanos < parse_usd("0.01")


def test_searches_are_priced_and_held_for(stack: LiveStack, alice: Tenant) -> None:
    sold = sell(stack, alice, expansion_tokens={"web_search": 1_000})
    response = ask(stack, alice, sold, text="[[sandbox: web_searches=3; tokens=5]]", tools=[WEB_SEARCH])
    assert response.status_code == 200
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.web_searches) == ("provider", 3)
    assert 3 * parse_usd("0.01") < record.cost_nanos <= record.hold_nanos


def test_compaction_runs_the_model_twice(stack: LiveStack, alice: Tenant) -> None:
    sold = sell(stack, alice)
    poor = stack.make_tenant(credit_usd="0.00001")
    plain = assert_error(ask(stack, poor, sold), 402, "insufficient_balance")
    edits = {"edits": [{"type": "compact_20260112"}]}
    twice = assert_error(ask(stack, poor, sold, context_management=edits), 402, "insufficient_balance")
    amount = re.compile(r"may cost up to \$([\d.]+)")
    once_nanos, twice_nanos = (parse_usd(amount.findall(message)[0]) for message in (plain, twice))
    assert 1.9 * once_nanos < twice_nanos < 2.3 * once_nanos  # The body is longer by the field.


# --- what cannot be ---------------------------------------------------------------------------------------------------


@EITHER_WAY
@pytest.mark.parametrize(
    ("directives", "problem"),
    [
        ("input_tokens=100000000", "100000000 prompt tokens reported"),
        ("cache_read=5000000", "prompt tokens reported"),
        ("web_searches=7", "7 searches reported, 0 were asked for"),
    ],
)
def test_counts_that_cannot_be_are_bounded_and_marked(
    stack: LiveStack, alice: Tenant, directives: str, problem: str, streamed: bool
) -> None:
    """A hundred million tokens for a prompt of forty bytes were 330 USD."""
    text = f"[[sandbox: {directives}; tokens=20]]"
    if streamed:
        stream = read_stream(stack.base_url, alice, text)
        shown = stream.only("message_delta")["usage"]
    else:
        response = stack.post(alice, text)
        assert response.status_code == 200
        shown = response.json()["usage"]
    record = wait_for_record(stack, alice)
    assert record.usage_source == UsageRecord.Source.BOUNDED
    assert problem in record.attempts[-1]["problem"]
    assert 0 < record.cost_nanos <= record.hold_nanos
    assert record.upstream_cost_nanos <= record.hold_nanos
    assert (record.input_tokens, record.output_tokens) == (shown["input_tokens"], shown["output_tokens"])
    assert record.web_searches == 0
    assert wait_until_released(stack, alice).credit_nanos == parse_usd("10") - record.cost_nanos


def test_check_ledger_tells_of_counts_that_cannot_be(stack: LiveStack, alice: Tenant) -> None:
    stack.post(alice, "[[sandbox: input_tokens=100000000; tokens=20]]")
    record = wait_for_record(stack, alice)
    told = stack.manage("check_ledger", "--quiet", check=False)
    assert f"usage {record.request_id} of organization {alice.organization.pk}" in told.stdout
    assert told.returncode == 1


# --- what is not sold -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {"fallbacks": [{"model": "claude-opus-5-5"}]},
        {"speed": "fast"},
        {"inference_geo": "us"},
        {"service_tier": "priority"},
        {"container": "container_of_somebody"},
        {"mcp_servers": [{"type": "url", "name": "a", "url": "https://mcp.example.org"}]},
        {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-5-5"}]},
        {"tools": [{"type": "code_execution_20260521", "name": "code_execution"}]},
        {"system": [{"type": "container_upload", "file_id": "file_of_somebody"}]},
    ],
)
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
def test_nothing_unpriced_reaches_an_upstream(
    stack: LiveStack, alice: Tenant, fields: dict[str, Any], path: str
) -> None:
    """On the shipped catalog: refused before admission, with the true reason."""
    body = {"model": "anthropic/claude-sonnet-4.6", "max_tokens": 10, "messages": [{"role": "user", "content": "Hi"}]}
    response = HTTP.post(stack.base_url + path, headers=alice.headers, json={**body, **fields})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert next(iter(fields)) in response.json()["error"]["message"]
    assert attempts_of(stack, response) == []
    assert_nothing_is_held(stack, alice)


def test_web_fetch_is_no_ability_of_the_shipped_catalog(stack: LiveStack, alice: Tenant) -> None:
    message = assert_error(stack.post(alice, tools=[WEB_FETCH]), 400, "unsupported_by_model")
    assert message == "This model does not support the web fetch tool."


def test_harmless_values_are_served_on_the_shipped_catalog(stack: LiveStack, alice: Tenant) -> None:
    harmless = {"speed": "standard", "inference_geo": "global", "service_tier": "auto", "mcp_servers": []}
    assert stack.post(alice, "Hi", **harmless, container=None, fallbacks=None).status_code == 200
    assert stack.post(alice, "Hi", speed=None, service_tier="standard_only").status_code == 200


def test_web_search_is_sold_on_the_shipped_catalog(stack: LiveStack, alice: Tenant) -> None:
    response = stack.post(alice, "[[sandbox: web_searches=2]]", tools=[WEB_SEARCH])
    assert response.status_code == 200
    record = stack.record(response)
    assert record.web_searches == 2
    assert record.hold_nanos > parse_usd("3")  # The context window: a million tokens at 3 USD a million.
    assert record.cost_nanos > 2 * parse_usd("0.01")
