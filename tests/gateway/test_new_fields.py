"""What newer clients and other servers do: warming a cache, thinking between tools, plain documents, odd numbers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import wait_for_record
from tests.gateway.scripted_upstream import MESSAGE, ScriptedUpstream, scripted_upstream, whole
from tests.gateway.wire import read_stream
from tests.support.live_stack import LiveStack, Tenant

PLAIN = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        yield upstream


def sent_body(upstream: ScriptedUpstream) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(upstream.requests[-1].partition(b"\r\n\r\n")[2])
    return body


def test_warming_a_cache_is_billed_for_what_it_wrote(
    stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream
) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
    usage = {"input_tokens": 7, "cache_creation_input_tokens": 30, "output_tokens": 0}
    upstream.script = whole(json.dumps({**MESSAGE, "stop_reason": "max_tokens", "usage": usage}).encode())
    response = stack.post(alice, "word " * 50, model=sold.model_id, max_tokens=0)
    assert (response.status_code, response.json()["content"]) == (200, []), response.text
    assert sent_body(upstream)["max_tokens"] == 0
    record = wait_for_record(stack, alice)
    assert record.usage_source == "provider"
    assert (record.input_tokens, record.cache_write_5m_tokens, record.output_tokens) == (7, 30, 0)


def test_they_reach_the_upstream(stack: LiveStack, alice: Tenant, upstream: ScriptedUpstream) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url])
    upstream.script = whole(json.dumps({**MESSAGE, "stop_reason": "end_turn"}).encode())
    fields: dict[str, Any] = {
        "thinking": {"type": "between_tools"},
        "messages": [{"role": "user", "content": [PLAIN, {"type": "text", "text": "What does it say?"}]}],
    }
    earlier: Any = {"diagnostics": {"previous_message_id": "msg_0123"}}
    response = stack.post(alice, model=sold.model_id, **fields, **earlier)
    assert response.status_code == 200, response.text
    sent = sent_body(upstream)
    assert {name: sent[name] for name in fields} == fields
    assert "diagnostics" not in sent


def test_numbers_of_blocks_that_fall_are_put_in_order(stack: LiveStack, alice: Tenant) -> None:
    text = "[[sandbox: out_of_order_index; tokens=60; thinking=20]]"
    stream = read_stream(stack.base_url, alice, text, thinking={"type": "adaptive"})
    starts = [event.data["index"] for event in stream.events if event.name == "content_block_start"]
    assert (starts, stream.names[-1]) == ([0, 1], "message_stop")
    assert wait_for_record(stack, alice).output_tokens == 60
