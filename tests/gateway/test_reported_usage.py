"""What an upstream says of usage, in bytes that no sandbox sends: zeros that wipe, zeros with text, no numbers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from billing.models import Upstream
from billing.money import parse_usd
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import wait_for_record
from tests.gateway.scripted_upstream import (
    BLOCK,
    COMPLETE,
    DELTA,
    MESSAGE,
    STOP,
    STOP_BLOCK,
    STREAM_HEAD,
    ScriptedUpstream,
    scripted_upstream,
    streamed,
    whole,
)
from tests.gateway.wire import read_stream
from tests.support.live_stack import HTTP, LiveStack, Tenant, body

NO_COUNTS: list[Any] = [
    {"input_tokens": 0, "output_tokens": 0},
    {"input_tokens": 12.5, "output_tokens": 40.0},
    {"input_tokens": "12", "output_tokens": "40"},
    {"input_tokens": -1, "output_tokens": -1},
    {"input_tokens": None, "output_tokens": None},
    {},
    None,
]
TEXT = "There are four seas and no more. " * 20


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        yield upstream


def start(usage: Any) -> tuple[str, bytes]:
    return "message_start", json.dumps({"type": "message_start", "message": {**MESSAGE, "usage": usage}}).encode()


def end(usage: Any) -> tuple[str, bytes]:
    delta = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
    return "message_delta", json.dumps(delta).encode()


def text(words: str) -> tuple[str, bytes]:
    delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": words}}
    return "content_block_delta", json.dumps(delta).encode()


def chunks(*payloads: dict[str, Any]) -> bytes:
    lines = b"".join(b"data: %b\n\n" % json.dumps(payload).encode() for payload in payloads)
    return STREAM_HEAD + lines + b"data: [DONE]\n\n"


def test_zeros_at_the_end_of_a_stream_wipe_nothing(stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
    said = {"input_tokens": 1200, "cache_creation_input_tokens": 300, "cache_read_input_tokens": 50_000}
    upstream.script = streamed(
        start({**said, "output_tokens": 1}), BLOCK, DELTA, STOP_BLOCK,
        end({**dict.fromkeys(said, 0), "output_tokens": 40}), STOP,
    )  # fmt: skip
    # The body is as long as the prompt that is reported for it.
    stream = read_stream(stack.base_url, alice, "word " * 20_000, model=sold.model_id)
    assert stream.only("message_delta")["usage"] == {**said, "output_tokens": 40}
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.cost_nanos) == ("provider", parse_usd("0.020325"))


def test_zeros_in_a_last_chunk_wipe_nothing(stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream) -> None:
    sold = sell_catalog_model(
        stack, alice, [stack.base_url], upstream_urls=[upstream.url], protocol=Upstream.Protocol.CHAT_COMPLETIONS
    )
    first = {"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}
    upstream.script = chunks(
        {**first, "usage": {"prompt_tokens": 120, "completion_tokens": 30, "total_tokens": 150}},
        {"choices": [], "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}},
    )
    read_stream(stack.base_url, alice, model=sold.model_id)
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.input_tokens, record.output_tokens) == ("provider", 120, 30)


@pytest.mark.parametrize("usage", NO_COUNTS, ids=str)
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_text_without_counts_is_estimated_and_never_free(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream, usage: Any, is_streamed: bool
) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
    image = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    messages = [{"role": "user", "content": [image, {"type": "text", "text": "What is it?"}]}]
    fields: dict[str, Any] = {"model": sold.model_id, "messages": messages}
    if is_streamed:
        upstream.script = streamed(start(usage), BLOCK, text(TEXT), STOP_BLOCK, end(usage), STOP)
        shown = read_stream(stack.base_url, alice, **fields).only("message_delta")["usage"]
    else:
        message = {**MESSAGE, "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn", "usage": usage}
        upstream.script = whole(json.dumps(message).encode())
        shown = HTTP.post(f"{stack.base_url}/v1/messages", headers=alice.headers, json=body(**fields)).json()["usage"]
    record = wait_for_record(stack, alice)
    assert record.usage_source == "estimated"
    assert record.output_tokens == -(-len(TEXT) // 4)
    assert record.input_tokens > 1_500  # The image among them.
    assert 0 < record.cost_nanos <= record.hold_nanos
    assert (record.input_tokens, record.output_tokens) == (shown["input_tokens"], shown["output_tokens"])


def test_hidden_thinking_teaches_no_estimate(stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream) -> None:
    """A cut after 800 characters was billed 813 tokens, as replies with hidden thinking had taught one a byte."""
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
    hidden = {"type": "content_block_start", "index": 0, "content_block": {"type": "redacted_thinking", "data": "x"}}
    thinking = ("content_block_start", json.dumps(hidden).encode())
    shown = tuple((name, data.replace(b'"index": 0', b'"index": 1').replace(b'"index":0', b'"index":1'))
                  for name, data in (BLOCK, text("word " * 160), STOP_BLOCK))  # fmt: skip
    upstream.script = streamed(
        COMPLETE[0], thinking, STOP_BLOCK, *shown, end({"input_tokens": 7, "output_tokens": 400}), STOP
    )
    for _ in range(20):
        read_stream(stack.base_url, alice, model=sold.model_id)
    upstream.script = streamed(COMPLETE[0], BLOCK, text("word " * 160))
    before = {record.pk for record in stack.records(alice)}
    read_stream(stack.base_url, alice, model=sold.model_id)
    [record] = stack.wait_until(
        lambda: [record for record in stack.records(alice) if record.usage_source == "partial"],
        "the cut one is settled",
    )
    assert record.pk not in before
    assert record.output_tokens == 200


def test_searches_are_billed_beside_counts_that_are_none(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream
) -> None:
    """The estimate replaces what cannot be true, and nothing else; never more searches than were asked for."""
    sold = sell_catalog_model(
        stack, alice, [stack.base_url], upstream_urls=[upstream.url], capabilities=("tools", "web_search"),
        web_search=10_000_000_000,
    )  # fmt: skip
    usage = {"input_tokens": 0, "output_tokens": 0, "server_tool_use": {"web_search_requests": 5}}
    upstream.script = streamed(
        start({"input_tokens": 0, "output_tokens": 0}), BLOCK, DELTA, STOP_BLOCK, end(usage), STOP
    )
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    read_stream(stack.base_url, alice, model=sold.model_id, tools=[tool])
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.web_searches) == ("estimated", 3)
    assert 3 * parse_usd("0.01") < record.cost_nanos <= record.hold_nanos
