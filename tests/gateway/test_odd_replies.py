"""Replies in forms that no documentation has: the client gets the documented one, and pays what was counted."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from billing.models import Upstream
from tests.gateway.catalog_factory import sell_catalog_model
from tests.gateway.checks import assert_billed_once, wait_for_record
from tests.gateway.scripted_upstream import (
    COMPLETE,
    MESSAGE,
    STREAM_HEAD,
    ScriptedUpstream,
    scripted_upstream,
    streamed,
    whole,
)
from tests.gateway.test_chat_upstream import reply_to
from tests.support.live_stack import LiveStack, Tenant

CHAT, MESSAGES = Upstream.Protocol.CHAT_COMPLETIONS, Upstream.Protocol.MESSAGES
EITHER_WAY = pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
HI = [{"type": "text", "text": "Hi"}]
CALL = {"name": "f", "arguments": '{"a": 1}'}
USAGE = {"prompt_tokens": 7, "completion_tokens": 5}
TOOLS = [{"name": "f", "input_schema": {"type": "object"}}]


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with scripted_upstream() as upstream:
        yield upstream


def chat_reply(message: dict[str, Any], finish: str = "stop", usage: dict[str, Any] = USAGE) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"id": "c", "choices": [choice], "usage": usage}).encode()


def chat_stream(*payloads: bytes) -> bytes:
    return STREAM_HEAD + b"".join(b"data: %b\n\n" % payload for payload in (*payloads, b"[DONE]"))


# The same bytes whichever way was asked for: one of both is the other form.
REPLIES = {
    "chat, whole": (CHAT, whole(chat_reply({"content": "Hi"})), HI),
    "chat, streamed": (CHAT, chat_stream(chat_reply({"content": "Hi"}).replace(b'"message"', b'"delta"')), HI),
    "chat, a message for a delta": (CHAT, chat_stream(chat_reply({"content": "Hi"})), HI),
    "chat, parts": (CHAT, whole(chat_reply({"content": ["H", {"type": "output_text", "text": "i"}]})), HI),
    "chat, other names of counts": (
        CHAT,
        whole(chat_reply({"content": "Hi"}, usage={"input_tokens": 7, "output_tokens": 5})),
        HI,
    ),
    "chat, function_call": (
        CHAT,
        whole(chat_reply({"content": None, "function_call": CALL}, "function_call")),
        [{"type": "tool_use", "name": "f", "input": {"a": 1}}],
    ),
    "chat, filtered": (CHAT, whole(b'{"choices": [], "usage": %b}' % json.dumps(USAGE).encode()), []),
    "messages, whole": (
        MESSAGES,
        whole(
            json.dumps(
                {**MESSAGE, "content": HI, "stop_reason": "end_turn", "usage": {"input_tokens": 7, "output_tokens": 5}}
            ).encode()
        ),
        HI,
    ),
    "messages, streamed": (MESSAGES, streamed(*COMPLETE), HI),
}


@EITHER_WAY
@pytest.mark.parametrize(("protocol", "answer", "content"), REPLIES.values(), ids=REPLIES.keys())
def test_a_reply_in_an_odd_form(
    stack: LiveStack,
    alice: Tenant,
    upstream: ScriptedUpstream,
    protocol: Upstream.Protocol,
    answer: bytes,
    content: list[dict[str, Any]],
    is_streamed: bool,
) -> None:
    sold = sell_catalog_model(stack, alice, [stack.base_url], upstream_urls=[upstream.url], protocol=protocol)
    upstream.script = answer
    reply = reply_to(stack, alice, sold, "Hello", streamed=is_streamed, tools=TOOLS)
    assert [{name: value for name, value in block.items() if name != "id"} for block in reply["content"]] == content
    assert (reply["usage"]["input_tokens"], reply["usage"]["output_tokens"]) == (7, 5)
    record = wait_for_record(stack, alice)
    assert (record.usage_source, record.input_tokens, record.output_tokens) == ("provider", 7, 5)
    assert_billed_once(stack, alice, record)
    assert len(upstream.requests) == 1
